//! One answer for all concurrent requests, so that the cost does not grow with their number.

use std::future::Future;
use std::time::Instant;

use tokio::sync::Mutex;

/// The latest answer.
#[derive(Debug)]
pub(crate) struct Latest<T> {
    /// The start of the computation and its answer.
    last: Mutex<Option<(Instant, T)>>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Latest { last: Mutex::new(None) }
    }
}

impl<T: Clone> Latest<T> {
    /// An answer whose computation started after this call: that of another caller if there is one, otherwise that of `ask`. If a
    /// caller is cancelled during its computation, the next one computes.
    pub(crate) async fn get<F: Future<Output = T>>(&self, ask: impl FnOnce() -> F) -> T {
        let called = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((_, answer)) = last.as_ref().filter(|(begun, _)| *begun >= called) {
            return answer.clone();
        }
        let begun = Instant::now();
        let answer = ask().await;
        *last = Some((begun, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn concurrent_requests_share_an_answer_that_is_not_older_than_they_are() {
        let (latest, asked) = (Arc::new(Latest::default()), Arc::new(AtomicUsize::new(0)));
        let ask = async || {
            let number = asked.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            number
        };
        let first = latest.get(ask);
        let others = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let asked = (0..100).map(|_| {
                let (latest, asked) = (Arc::clone(&latest), Arc::clone(&asked));
                tokio::spawn(async move { latest.get(async || asked.fetch_add(1, Relaxed)).await })
            });
            let mut answers = Vec::new();
            for answer in asked.collect::<Vec<_>>() {
                answers.push(answer.await.unwrap());
            }
            answers
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!((first, others), (0, vec![1; 100]), "the first computation started before the other requests");
        assert_eq!(latest.get(async || 9).await, 9);
    }
}
