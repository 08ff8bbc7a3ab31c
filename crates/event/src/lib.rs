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
mod column_type;
mod name;
mod schema;

pub use batch::{Batch, INGESTED_AT, Offset, PartitionId, TopicPartition, Watermark};
pub use column_type::{ColumnType, ParseColumnTypeError};
pub use name::{NAME_BYTES_MAX, Name, NameError};
pub use schema::{Column, Schema, SchemaError};
