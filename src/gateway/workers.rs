//! Starts the workers: each on a thread of its own or, if there is only one, on the engine thread.
//!
//! A thread of its own would gain nothing for the only worker, which is meant to use one core: each publication, and each
//! command to Redis and its answer, would pay for a switch between two threads that take the core from each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tokio::sync::mpsc;
use tokio::task;

use super::StartError;
use crate::listener::Worker;

/// The workers that run.
pub(super) struct Workers {
    threads: Vec<thread::JoinHandle<()>>,
    /// The only worker, if it is a task of the engine thread.
    task: Option<task::JoinHandle<()>>,
    /// Receives a message when the first of them has ended.
    pub ended: mpsc::Receiver<()>,
}

/// Reports the end of a worker, also by a panic.
struct EndReport(mpsc::Sender<()>);

impl Drop for EndReport {
    fn drop(&mut self) {
        // If the channel is full, another worker has ended before.
        let _ = self.0.try_send(());
    }
}

impl Workers {
    /// Must be called on the engine thread, within a `LocalSet`.
    pub fn start(mut workers: Vec<Worker>) -> Result<Self, StartError> {
        let (report, ended) = mpsc::channel(1);
        if workers.len() == 1
            && let Some(worker) = workers.pop()
        {
            let report = EndReport(report);
            let task = task::spawn_local(async move {
                let _report = report;
                log_failure(worker.serve().await);
            });
            return Ok(Self { threads: Vec::new(), task: Some(task), ended });
        }
        let threads = workers
            .into_iter()
            .enumerate()
            .map(|(number, worker)| {
                let report = EndReport(report.clone());
                thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                    let _report = report;
                    // A panic has been logged by the hook of the process.
                    let run = catch_unwind(AssertUnwindSafe(|| worker.run()));
                    log_failure(run.unwrap_or(Ok(())));
                })
            })
            .collect::<Result<_, _>>()
            .map_err(|error| StartError::System { what: "worker thread", error })?;
        Ok(Self { threads, task: None, ended })
    }

    /// Waits until all have ended, which they do when the process is killed.
    pub async fn join(self) {
        if let Some(task) = self.task {
            // A panic has already been logged.
            let _ = task.await;
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn log_failure(run: std::io::Result<()>) {
    if let Err(error) = run {
        tracing::error!(event = "worker_failed", %error, "a worker failed");
    }
}
