//! Which tables a SQL text names, before anybody knows what they are: planning needs an order.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{ObjectNamePart, visit_relations};
use datafusion_sql::sqlparser::parser::Parser;

use crate::sql::dialect::Sql;

/// The names behind FROM and JOIN, as written; none where the text cannot be parsed, which planning it says.
pub fn relations(sql: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for statement in Parser::parse_sql(&Sql, sql).unwrap_or_default() {
        let visited = visit_relations(&statement, |name| {
            if let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() {
                names.insert(ident.value.clone());
            }
            ControlFlow::<()>::Continue(())
        });
        debug_assert!(visited.is_continue(), "nothing breaks off");
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_wherever_they_are_joined() {
        let sql = "WITH x AS (SELECT * FROM a LEFT JOIN b ON a.k = b.k) SELECT c FROM tumble(t, at, INTERVAL '1' DAY) \
                   UNION ALL SELECT c FROM (SELECT d.c FROM \"D\" AS d, x) AS e";
        let names: Vec<String> = relations(sql).into_iter().filter(|name| name.len() == 1).collect();
        assert_eq!(names, ["D", "a", "b", "x"]);
        assert!(relations("SELECT FROM").is_empty());
    }
}
