// What the faults happen to: here the real system calls, in the tests those that may be on the double of kqueue.
global using CallsBelow = Amy.Async.Native.SystemCalls;
