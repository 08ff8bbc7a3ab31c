//! `init`: writes a small pipeline that runs at once.

use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::shown;
use crate::terminal::Out;

const PIPELINE: &str = include_str!("pipeline.yaml");
const VALUE_SQL: &str = include_str!("value.sql");
const GITIGNORE: &str = "# what running leaves behind\nlog/\nout/\n";

/// Write a small, commented pipeline that runs at once
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write it; made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Exit, Failure> {
    let name = pipeline_name(&args.dir);
    let files = [
        ("pipeline.yaml", PIPELINE.replace("pipeline: hello", &format!("pipeline: {name}"))),
        ("sql/value.sql", VALUE_SQL.to_owned()),
        (".gitignore", GITIGNORE.to_owned()),
    ];
    let there: Vec<String> = files
        .iter()
        .map(|(file, _)| args.dir.join(file))
        .filter(|path| path.exists() && path.file_name().is_none_or(|n| n != ".gitignore"))
        .map(|path| shown(&path))
        .collect();
    if !there.is_empty() {
        return Err(Failure::refused(
            "file-exists",
            format!(
                "{} {} there already, and nothing is overwritten",
                there.join(" and "),
                if there.len() == 1 { "is" } else { "are" }
            ),
            "name another directory: `millstream init DIR`",
        ));
    }
    let mut written = Vec::new();
    for (file, text) in &files {
        let path = args.dir.join(file);
        // An ignore file that somebody else wrote stays as it is.
        if !path.exists() {
            write(&path, text)?;
            written.push(shown(&path));
        }
    }
    if out.json {
        out.value(&serde_json::json!({"pipeline": name, "written": written}))?;
        return Ok(Exit::Done);
    }
    for path in &written {
        out.line(&format!("wrote {path}"))?;
    }
    let (run, at) = match args.dir.as_path() == Path::new(".") {
        true => (String::new(), String::new()),
        false => (format!(" {}", shown(&args.dir)), format!(" -p {}", shown(&args.dir))),
    };
    out.line("")?;
    for (command, what) in [
        (format!("millstream test{run}"), "try its examples"),
        (format!("millstream run{run}"), "run it; Ctrl-C stops it, and the next run goes on where it stopped"),
        (format!("millstream tap large --follow{at}"), "from a second terminal: watch the large payments"),
    ] {
        out.line(&format!("  {}", out.style.bold(&command)))?;
        out.line(&format!("      {what}"))?;
    }
    Ok(Exit::Done)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let said = |error: std::io::Error| Failure::Failed(anyhow::anyhow!("cannot write {}: {error}", path.display()));
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(said)?;
    }
    std::fs::write(path, text).map_err(said)
}

/// The directory's name where it can be a pipeline's, else `hello`.
fn pipeline_name(dir: &Path) -> String {
    let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let name = full.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let fits = name.chars().next().is_some_and(|c| c.is_ascii_lowercase())
        && name.len() <= 40
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if fits { name } else { "hello".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_called_like_its_directory_where_that_is_a_name() {
        assert_eq!(pipeline_name(Path::new("/tmp/orders")), "orders");
        assert_eq!(pipeline_name(Path::new("/tmp/My Orders")), "hello");
        assert_eq!(pipeline_name(Path::new("/")), "hello");
    }
}
