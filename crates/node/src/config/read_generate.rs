//! Reads `generate:`.

use super::decode::{Decoder, Fields, first_line};
use super::scalars;
use super::settings::*;
use super::yaml::{Node, Value};
use crate::diagnostic::Diagnostic;

const KEYS: [&str; 12] = [
    "kind",
    "rate",
    "count",
    "seed",
    "start",
    "customers",
    "merchants",
    "bad",
    "symbols",
    "accounts",
    "skus",
    "warehouses",
];

/// What is made up, and the keys that only this kind has.
const KINDS: [(&str, GenerateKind, &[&str]); 7] = [
    ("card_transactions", GenerateKind::CardTransactions, &["customers", "merchants", "bad"]),
    ("nexmark_persons", GenerateKind::NexmarkPersons, &[]),
    ("nexmark_auctions", GenerateKind::NexmarkAuctions, &[]),
    ("nexmark_bids", GenerateKind::NexmarkBids, &[]),
    ("ticks", GenerateKind::Ticks, &["symbols"]),
    ("orders", GenerateKind::Orders, &["symbols", "accounts"]),
    ("inventory", GenerateKind::Inventory, &["skus", "warehouses"]),
];

pub(super) fn read_generate(decoder: &mut Decoder<'_>, node: &Node) -> Option<GenerateSettings> {
    let f = decoder.fields(node, first_line(node.span), "`generate`", &KEYS, &[])?;
    let kind = match f.get("kind") {
        None => Some(GenerateKind::CardTransactions),
        Some(n) => decoder.choice(n, "`kind`", &KINDS.map(|(name, kind, _)| (name, kind))),
    };
    if let Some(kind) = kind {
        refuse_keys_of_others(decoder, &f, kind);
    }
    let rate = f.get("rate").and_then(|n| {
        decoder.parsed(n, "`rate`", "events per second", |t| match t.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
            _ => Err("a number of events per second above 0".into()),
        })
    });
    let mut number = |key: &str, min: u64, max: u64| {
        f.get(key).and_then(|n| decoder.integer(n, &format!("`{key}`"), min, max)).map(|n| n.value)
    };
    let (count, seed) = (number("count", 1, u64::MAX), number("seed", 0, u64::MAX));
    let (customers, merchants) = (number("customers", 1, 10_000_000), number("merchants", 1, 10_000_000));
    let (symbols, accounts) = (number("symbols", 1, 10_000_000), number("accounts", 1, 10_000_000));
    let (skus, warehouses) = (number("skus", 1, 10_000_000), number("warehouses", 1, 10_000_000));
    Some(GenerateSettings {
        kind: kind?,
        rate,
        count,
        seed,
        start: f.get("start").and_then(|n| match &n.value {
            Value::Scalar(_) => decoder.text(n, "`start`"),
            _ => None,
        }),
        customers,
        merchants,
        bad: f.get("bad").and_then(|n| decoder.parsed(n, "`bad`", "a share such as `1.5%`", scalars::share)),
        symbols,
        accounts,
        skus,
        warehouses,
    })
}

/// A key that only other kinds have would do nothing here.
fn refuse_keys_of_others(decoder: &mut Decoder<'_>, f: &Fields<'_>, kind: GenerateKind) {
    let Some((name, _, own)) = KINDS.iter().find(|(_, k, _)| *k == kind) else { return };
    for key in KEYS.iter().filter(|key| !own.contains(key)) {
        let other = KINDS.iter().find(|(.., keys)| keys.contains(key));
        if let (Some((other, ..)), Some(span)) = (other, f.key_span(key)) {
            let message = format!("`{key}` is a key of `kind: {other}`, and this makes `{name}`");
            decoder.report(span, Diagnostic::error("bad-value", message).label("leave it out"));
        }
    }
}
