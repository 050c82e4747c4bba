//! A second line of retries behind the store library's own: it repeats requests that a broken connection ended, also those that
//! the library must not repeat because it cannot know what they would do twice.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use object_store::Error;

use super::{explain, Bucket};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Bucket {
    pub(super) async fn persist<T, F>(&self, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let start = Instant::now();
        let mut tries = 0;
        loop {
            match request().await {
                Err(error)
                    if explain::is_transport(&error)
                        && !explain::is_given_up(&error, self.options.max_retries)
                        && tries < self.options.max_retries
                        && start.elapsed() < self.options.retry_time =>
                {
                    tokio::time::sleep(pause(tries)).await;
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}

/// Doubles with each try; between half and all of it, at random, so that many clients do not come back together.
pub fn pause(tries: usize) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE);
    // The standard library's only source of randomness is the seed of its hash maps.
    let random = RandomState::new().hash_one(tries) as f64 / u64::MAX as f64;
    longest.mul_f64(0.5 + 0.5 * random)
}
