//! How things look: colours, numbers for people, tables, questions.

mod ask;
mod human;
mod out;
mod style;
mod table;

pub(crate) use ask::confirm;
pub(crate) use human::{bytes, count, duration, millis, rate};
pub(crate) use out::Out;
pub(crate) use style::Style;
pub(crate) use table::{Align, Table, fit, width, wrap};
