//! Names that were mistyped.

use crate::failure::Failure;

/// The failure for a name that is not there: the nearest one, and the list.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> Failure {
    let mut help = String::new();
    if let Some(near) = nearest(name, known) {
        help.push_str(&format!("did you mean `{near}`?\n"));
    }
    match known.is_empty() {
        true => help.push_str(&format!("there are no {what}s")),
        false => help.push_str(&format!("the {what}s are: {}", known.join(", "))),
    }
    Failure::refused(&format!("{what}-unknown"), format!("there is no {what} `{name}`"), help)
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), *k))
        .filter(|(distance, k)| *distance <= (name.len().max(k.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_finds_its_neighbour() {
        assert_eq!(nearest("Scorred", &["valid", "scored"]), Some("scored"));
        assert_eq!(nearest("nothing", &["valid", "scored"]), None);
    }
}
