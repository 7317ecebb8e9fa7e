//! Signals to the processes that tests start.

use std::process::Child;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Sends `signal` to `child`. After SIGSTOP no thread of it runs: the kernel takes the signal before it has stopped
/// them, and a process that still runs on another processor might answer what the test does next.
pub fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("the process takes a signal");
    if signal == Signal::STOP {
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(pid), stopped).expect("a child can be waited for");
        assert!(status.is_some_and(|status| status.stopped()), "it has ended instead: {status:?}");
    }
}
