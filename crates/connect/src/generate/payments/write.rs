//! Payments as lines of JSON, fast enough to feed benchmarks, and the two lookup files.

use std::io::{self, Write};

use chrono::{Datelike, Days, NaiveDate};

use super::simulator::{Bad, Counts, Payment, Simulator};
use crate::generate::digits::{digits, number};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes the next `events` payments (fewer where `count` ends the stream) as NDJSON, bad ones included, and says what
/// they were.
pub fn generate_ndjson(simulator: &mut Simulator, events: u64, out: &mut dyn Write) -> io::Result<Counts> {
    let mut lines = Lines::default();
    let mut counts = Counts::default();
    let mut buffer = Vec::with_capacity(BUFFER_BYTES + 1024);
    let start = simulator.settings().start;
    for _ in 0..events {
        let Some(payment) = simulator.next() else { break };
        counts.add(&payment);
        lines.write(&payment, start, &mut buffer);
        if buffer.len() >= BUFFER_BYTES {
            out.write_all(&buffer)?;
            buffer.clear();
        }
    }
    out.write_all(&buffer)?;
    Ok(counts)
}

/// Writes the customers of a simulator as CSV: `card_id,segment,home_country,daily_limit`.
pub fn generate_customers_csv(simulator: &Simulator, out: &mut dyn Write) -> io::Result<()> {
    simulator.population().write_customers(out)
}

/// Writes the merchants of a simulator as CSV: `merchant_id,category,risk`.
pub fn generate_merchants_csv(simulator: &Simulator, out: &mut dyn Write) -> io::Result<()> {
    simulator.population().write_merchants(out)
}

/// Writes payments as lines; keeps the text of the current date.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    date: Option<(u64, Vec<u8>)>,
}

impl Lines {
    /// One line with its newline, spoiled as [`Payment::bad`] says.
    pub(crate) fn write(&mut self, payment: &Payment, start: NaiveDate, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":\"");
        number(b'T', payment.number, 9, out);
        if payment.bad != Some(Bad::NoCard) {
            out.extend_from_slice(b"\",\"card_id\":\"");
            number(b'C', u64::from(payment.customer), 5, out);
        }
        if payment.bad == Some(Bad::NoMerchant) {
            out.extend_from_slice(b"\",\"merchant_id\":null,\"amount\":");
        } else {
            out.extend_from_slice(b"\",\"merchant_id\":\"");
            number(b'M', u64::from(payment.merchant), 5, out);
            out.extend_from_slice(b"\",\"amount\":");
        }
        match payment.bad {
            Some(Bad::BadAmount) => out.extend_from_slice(b"\"a lot\""),
            _ => money(payment.cents, out),
        }
        out.extend_from_slice(b",\"currency\":\"");
        out.extend_from_slice(payment.currency.as_bytes());
        if payment.bad == Some(Bad::Malformed) {
            // The line breaks off inside a string.
            out.push(b'\n');
            return;
        }
        out.extend_from_slice(b"\",\"country\":\"");
        out.extend_from_slice(payment.country.as_bytes());
        out.extend_from_slice(b"\",\"at\":\"");
        match payment.bad {
            Some(Bad::BadTime) => out.extend_from_slice(b"yesterday"),
            _ => self.time(payment, start, out),
        }
        out.extend_from_slice(if payment.scenario == 0 { b"\",\"fraud\":false" } else { b"\",\"fraud\":true" });
        out.extend_from_slice(b",\"scenario\":");
        out.push(b'0' + payment.scenario);
        out.extend_from_slice(b"}\n");
    }

    fn time(&mut self, payment: &Payment, start: NaiveDate, out: &mut Vec<u8>) {
        if self.date.as_ref().is_none_or(|(day, _)| *day != payment.day) {
            let date = start.checked_add_days(Days::new(payment.day)).unwrap_or(NaiveDate::MAX);
            let text = format!("{:04}-{:02}-{:02}T", date.year(), date.month(), date.day());
            self.date = Some((payment.day, text.into_bytes()));
        }
        if let Some((_, date)) = &self.date {
            out.extend_from_slice(date);
        }
        let (ms, seconds) = (payment.at_ms % 1000, payment.at_ms / 1000);
        digits(u64::from(seconds / 3600), 2, out);
        out.push(b':');
        digits(u64::from(seconds / 60 % 60), 2, out);
        out.push(b':');
        digits(u64::from(seconds % 60), 2, out);
        out.push(b'.');
        digits(u64::from(ms), 3, out);
        out.push(b'Z');
    }
}

fn money(cents: i64, out: &mut Vec<u8>) {
    if cents < 0 {
        out.push(b'-');
    }
    let cents = cents.unsigned_abs();
    digits(cents / 100, 1, out);
    out.push(b'.');
    digits(cents % 100, 2, out);
}
