//! Every scalar function that DataFusion registers can be used row by row, or is refused by its name with a reason:
//! `tests/golden/functions.test` has a case for each, named like it. The golden test holds what the cases yield.

use std::collections::BTreeMap;
use std::path::Path;

use millstream_event::{Column, Name, Schema};
use millstream_flow::{Catalog, plan_query};

/// What may be said about a function that is not offered.
const REFUSALS: [&str; 3] = ["sql-volatile", "sql-lambda", "sql-no-function"];

struct Case {
    sql: String,
    expect: String,
}

fn golden() -> (Catalog, BTreeMap<String, Case>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/functions.test");
    let text = std::fs::read_to_string(path).unwrap();
    let (head, cases) = text.split_once("\n@case ").unwrap();
    let (columns, _) = head.strip_prefix("@topic t\n").unwrap().split_once("\n@rows").unwrap();
    let columns = columns.lines().map(|c| c.split_once(": ").unwrap()).map(|(n, k)| Column::parse(n, k).unwrap());
    let mut catalog = Catalog::default();
    catalog.topics.insert(Name::new("t").unwrap(), Schema::new(columns.collect()).unwrap());
    let cases = cases.split("\n@case ").map(|case| {
        let (name, rest) = case.split_once('\n').unwrap();
        let (sql, expect) = rest.split_once("\n@expect\n").unwrap();
        (name.to_owned(), Case { sql: sql.to_owned(), expect: expect.to_owned() })
    });
    (catalog, cases.collect())
}

/// Each function's name and its other names.
fn registered() -> Vec<(String, Vec<String>)> {
    let scalar = datafusion_functions::all_default_functions().into_iter();
    let scalar = scalar.chain(datafusion_functions_nested::all_default_nested_functions());
    let scalar = scalar.map(|f| (f.name().to_owned(), f.aliases().to_vec()));
    let higher = datafusion_functions_nested::all_default_higher_order_functions().into_iter();
    let higher = higher.map(|f| (f.name().to_owned(), f.aliases().to_vec()));
    scalar.chain(higher).collect()
}

#[test]
fn every_registered_function_works_row_by_row_or_is_refused_by_name() {
    let (catalog, cases) = golden();
    let registered = registered();
    assert!(registered.len() > 150, "{}", registered.len());
    let mut wrong = Vec::new();
    for (name, aliases) in &registered {
        let Some(case) = cases.get(name) else {
            wrong.push(format!("{name} (also {}) has no case", aliases.join(", ")));
            continue;
        };
        if !case.sql.contains(&format!("{name}(")) {
            wrong.push(format!("the case of {name} does not call it: {}", case.sql));
        }
        let refused = case.expect.strip_prefix("error[").and_then(|e| e.split(']').next());
        match refused {
            None if !case.expect.contains("\n{\"x\":") => wrong.push(format!("{name} gives nothing: {}", case.expect)),
            Some(code) if !REFUSALS.contains(&code) || !case.expect.contains("help: ") => {
                wrong.push(format!("{name} is refused without a reason of its own: {}", case.expect));
            }
            _ => {}
        }
        for alias in aliases {
            let sql = case.sql.replacen(&format!("{name}("), &format!("{alias}("), 1);
            let planned = plan_query(&sql, &catalog);
            let same = match (&planned, refused) {
                (Ok(_), None) => true,
                (Err(errors), Some(code)) => errors[0].code == code,
                _ => false,
            };
            if !same {
                wrong.push(format!("{alias} is not {name}: {:?}", planned.err()));
            }
        }
    }
    for name in cases.keys().filter(|name| !registered.iter().any(|(known, _)| known == *name)) {
        wrong.push(format!("there is no function {name} any more"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
