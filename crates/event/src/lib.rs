//! What flows through a pipeline: batches of events in Arrow columns, their schemas, keys and codecs.
//!
//! This crate does no I/O, starts no thread and knows neither tokio nor DataFusion. It is *not* the place for
//! anything that a log, a service or a connector decides.
//!
//! ```
//! use millstream_event::{Column, ColumnType, Schema};
//!
//! let schema = Schema::new(vec![
//!     Column::required("id", ColumnType::String),
//!     Column::nullable("amount", "decimal(12,2)".parse().unwrap()),
//! ])
//! .unwrap();
//! assert_eq!(schema.to_string(), "id: string!, amount: decimal(12,2)");
//! ```

mod batch;
mod builder;
mod column_type;
mod conform;
pub mod csv;
mod decoded;
pub mod ipc;
pub mod json;
mod key;
mod name;
mod schema;
mod stamp;
mod value;

pub use batch::{Batch, INGESTED_AT, Mark, Offset, PartitionId, Producer, TopicPartition, Watermark};
pub use column_type::{ColumnType, ParseColumnTypeError};
pub use conform::{ConformError, IncompatibleError};
pub use decoded::{Code, Decoded, LINE_BYTES_MAX, REASON_BYTES_MAX, Refused, Unknown};
pub use key::{KeyError, Part, Partitioner, Split, murmur2, partition_of};
pub use name::{NAME_BYTES_MAX, Name, NameError};
pub use schema::{Column, EXTRA, Schema, SchemaError};
pub use stamp::Stamp;
