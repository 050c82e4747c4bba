//! The threads that do the requests, made at first use and shared by all buckets.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

use crate::failure::{Code, Failure, Result};

/// Hashing and copying of what is sent and received is the work; the network does the waiting.
const MAX_THREADS: usize = 4;

pub fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Builder::new_multi_thread()
            .worker_threads(cores.min(MAX_THREADS))
            .thread_name("bearing-store")
            .enable_all()
            .build()
    });
    made.as_ref()
        .map_err(|error| Failure::new(Code::ResourceExhausted, format!("cannot start threads for object storage: {error}")))
}

/// Blocks the calling thread until `future` is done.
pub fn run<F: Future>(future: F) -> Result<F::Output> {
    Ok(runtime()?.block_on(future))
}
