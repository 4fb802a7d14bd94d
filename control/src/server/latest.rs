//! One answer for all who ask at the same time, so that the cost does not grow with their number.

use std::future::Future;
use std::time::Instant;

use tokio::sync::Mutex;

/// The latest answer.
#[derive(Debug)]
pub(crate) struct Latest<T> {
    /// When it was begun, and what it was.
    last: Mutex<Option<(Instant, T)>>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Latest { last: Mutex::new(None) }
    }
}

impl<T: Clone> Latest<T> {
    /// An answer that was begun after this call: another caller's, if one was, or else what `ask` says. If a caller goes
    /// away while it asks, the next one asks.
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
    async fn those_who_ask_at_once_share_an_answer_that_is_not_older_than_their_question() {
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
        assert_eq!((first, others), (0, vec![1; 100]), "the first was begun before the others asked");
        assert_eq!(latest.get(async || 9).await, 9);
    }
}
