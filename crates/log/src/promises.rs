//! What each producer has promised last in a partition, and from where on it holds.
//!
//! Invariants: sorted by producer, each once; a promise is never forgotten, also when the events before it have gone, so
//! that a reader that begins behind them learns it. There are as many as producers: a bounded number.

use std::sync::Arc;

use millstream_event::{Mark, Producer, Watermark};
use serde::{Deserialize, Serialize};

/// The last promises of a partition's producers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Promises(Vec<Promise>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Promise {
    producer: Producer,
    watermark: Watermark,
    /// The offset behind the append that brought it.
    at: u64,
}

impl Promises {
    /// Takes a promise in that came with an append that ends before offset `at`.
    pub(crate) fn note(&mut self, mark: &Mark, at: u64) {
        match self.0.binary_search_by(|promise| promise.producer.cmp(&mark.producer)) {
            Ok(place) => {
                if let Some(promise) = self.0.get_mut(place) {
                    (promise.watermark, promise.at) = (mark.watermark, at);
                }
            }
            Err(place) => {
                self.0.insert(place, Promise { producer: mark.producer.clone(), watermark: mark.watermark, at });
            }
        }
    }

    /// The promises that a reader from offset `from` on would not see any more, because they came before.
    pub(crate) fn before(&self, from: u64) -> Arc<[Mark]> {
        let mark = |promise: &Promise| Mark { producer: promise.producer.clone(), watermark: promise.watermark };
        self.0.iter().filter(|promise| promise.at <= from).map(mark).collect()
    }

    /// All of them, as they stand behind the last append.
    pub(crate) fn marks(&self) -> Arc<[Mark]> {
        self.before(u64::MAX)
    }
}
