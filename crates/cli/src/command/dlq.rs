//! `dlq`: the events that services refused.

use clap::Subcommand;
use millstream_node::api::{
    Letter, LetterId, LetterOutcome, LetterState, LettersQuery, LettersRequest, LettersResult, Phase, Status, paths,
};

use crate::client::{Client, letters_path};
use crate::command::letters;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::{Target, TargetArgs};
use crate::terminal::{Align, Out, Table, confirm, count};

/// The code of letters that broke rules, which are told by the rules' names.
const CHECK: &str = "check";
/// How many letters are shown unless more are asked for.
const SHOWN: u64 = 50;

/// Look at dead letters, and give them back to the service that refused them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a service's letters; without a service, how many each has
    List {
        /// The service or source that refused them
        service: Option<String>,
        #[command(flatten)]
        which: Which,
        /// Also those already replayed or discarded
        #[arg(long)]
        all: bool,
        /// Show at most so many
        #[arg(short = 'n', long, value_name = "N", default_value_t = SHOWN)]
        limit: u64,
    },
    /// Show one letter with all that is known about it
    Show {
        /// The service or source that refused it
        service: String,
        /// Its id, as `dlq list` prints it
        id: LetterId,
    },
    /// Give letters back to the service that refused them, and to no other
    Replay(Selection),
    /// Give letters up
    Discard(Selection),
}

/// Which letters of a service.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// Only letters with this code (check, cast, overflow, key-null, …)
    #[arg(long)]
    code: Option<String>,
    /// Only letters that broke this rule
    #[arg(long)]
    rule: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Selection {
    /// The service that refused them
    service: String,
    /// Ids, as `dlq list` prints them
    ids: Vec<LetterId>,
    #[command(flatten)]
    which: Which,
    /// All that are open
    #[arg(long, conflicts_with_all = ["ids", "code", "rule"])]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Selection {
    fn request(&self) -> Result<LettersRequest, Failure> {
        let none = self.ids.is_empty() && self.which.code.is_none() && self.which.rule.is_none() && !self.all;
        if none {
            let help = "say which letters: ids as `dlq list` prints them, --code CODE, --rule RULE, or --all";
            return Err(Failure::Usage(help.into()));
        }
        let Which { code, rule } = self.which.clone();
        Ok(LettersRequest { ids: self.ids.clone(), code, rule, all: self.all })
    }

    fn text(&self) -> String {
        match (self.ids.as_slice(), &self.which.code, &self.which.rule) {
            ([], None, None) => "all open letters".into(),
            ([], Some(code), None) => format!("all open letters with code `{code}`"),
            ([], None, Some(rule)) => format!("all open letters that broke `{rule}`"),
            ([], Some(code), Some(rule)) => format!("all open letters with code `{code}` that broke `{rule}`"),
            ([id], ..) => format!("letter {id}"),
            (ids, ..) => format!("{} letters", ids.len()),
        }
    }
}

pub(crate) async fn run(args: Args, out: &mut Out) -> Result<Exit, Failure> {
    match &args.command {
        Command::List { service: None, .. } => overview(&args.target, out).await,
        Command::List { service: Some(service), which, all, limit } => {
            let state = (!all).then_some(LetterState::Open);
            let Which { code, rule } = which.clone();
            let query = LettersQuery { code, rule, state, id: None, limit: Some(*limit) };
            let found = fetch(&args.target, service, &query).await?;
            letters::print_list(&found, *limit, out)?;
            Ok(Exit::Done)
        }
        Command::Show { service, id } => {
            let query = LettersQuery { id: Some(*id), ..LettersQuery::default() };
            let found = fetch(&args.target, service, &query).await?;
            let Some(letter) = found.first() else {
                return Err(Failure::refused(
                    "letter-unknown",
                    format!("`{service}` has no dead letter {id}"),
                    format!("`millstream dlq list {service} --all` shows what it has"),
                ));
            };
            letters::print_one(letter, out)?;
            Ok(Exit::Done)
        }
        Command::Replay(selection) => {
            let request = selection.request()?;
            let client = args.target.node("replaying").await?;
            let question = format!(
                "Give {} back to `{}`? They are handled now, after events that came later: order per key is not kept.",
                selection.text(),
                selection.service
            );
            act(&client, paths::REPLAY, selection, &request, &question, out).await
        }
        Command::Discard(selection) => {
            let request = selection.request()?;
            let client = args.target.node("discarding").await?;
            let question =
                format!("Give up {} of `{}`? They cannot be replayed afterwards.", selection.text(), selection.service);
            act(&client, paths::DISCARD, selection, &request, &question, out).await
        }
    }
}

async fn act(
    client: &Client,
    path: &str,
    selection: &Selection,
    request: &LettersRequest,
    question: &str,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let meant = meant(client, selection).await?;
    if meant && !confirm(question, selection.yes)? {
        eprintln!("nothing was done");
        return Ok(Exit::Failed);
    }
    let result = match meant || !selection.ids.is_empty() {
        true => client.post(&paths::fill(path, &selection.service), request).await?,
        // A letter that came since must not be taken without the question.
        false => LettersResult { done: 0, refused: 0, answers: Vec::new() },
    };
    if out.json {
        out.value(&result)?;
    } else {
        for answer in &result.answers {
            let why = match answer.outcome {
                LetterOutcome::Replayed | LetterOutcome::Discarded => continue,
                LetterOutcome::AlreadyReplayed => "was replayed before",
                LetterOutcome::AlreadyDiscarded if path == paths::REPLAY => "was discarded, which is for good",
                LetterOutcome::AlreadyDiscarded => "was discarded before",
                LetterOutcome::Unknown => "does not exist",
                LetterOutcome::Unreadable => "cannot be read as an event even now",
            };
            out.line(&format!("{} {why}", answer.id))?;
        }
        let done = if path == paths::REPLAY { "replayed" } else { "discarded" };
        let refused = if result.refused > 0 { format!(", {} refused", count(result.refused)) } else { String::new() };
        out.line(&format!("{} {done}{refused}", count(result.done)))?;
    }
    // Asked for by name and not done is a failure; an empty "all" is not.
    Ok(if result.refused > 0 { Exit::Failed } else { Exit::Done })
}

/// Whether any open letter is meant. Where there is none nobody has to be asked.
async fn meant(client: &Client, selection: &Selection) -> Result<bool, Failure> {
    let Which { code, rule } = selection.which.clone();
    let query = LettersQuery { code, rule, state: Some(LetterState::Open), limit: Some(1), ..LettersQuery::default() };
    if selection.ids.is_empty() {
        return Ok(!ask(client, &selection.service, &query).await?.is_empty());
    }
    for id in &selection.ids {
        let query = LettersQuery { id: Some(*id), ..query.clone() };
        if !ask(client, &selection.service, &query).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn fetch(target: &TargetArgs, service: &str, query: &LettersQuery) -> Result<Vec<Letter>, Failure> {
    match target.find().await? {
        Target::Running(client) => ask(&client, service, query).await,
        Target::Stopped(loaded) => crate::stopped::letters(&loaded, service, query).await,
    }
}

async fn ask(client: &Client, service: &str, query: &LettersQuery) -> Result<Vec<Letter>, Failure> {
    let mut lines = client.lines(&letters_path(&paths::fill(paths::LETTERS, service), query)?).await?;
    let mut found = Vec::new();
    while let Some(line) = lines.next().await? {
        found.push(serde_json::from_slice(&line)?);
    }
    Ok(found)
}

async fn overview(target: &TargetArgs, out: &mut Out) -> Result<Exit, Failure> {
    let status: Status = target.status().await?;
    let mut table =
        Table::new(&[("REFUSED BY", Align::Left), ("LETTERS", Align::Right), ("CODE OR RULE", Align::Left)]);
    let mut data = serde_json::Map::new();
    for source in &status.sources {
        let why = source.refused_by_code.iter().map(|(code, n)| format!("{code} {}", count(*n)));
        table.row(vec![source.name.clone(), count(source.refused), why.collect::<Vec<_>>().join(", ")]);
        data.insert(
            source.name.clone(),
            serde_json::json!({"letters": source.refused, "by_code": source.refused_by_code}),
        );
    }
    for service in &status.services {
        let codes = service.dead_letters_by_code.iter().filter(|(code, _)| *code != CHECK);
        let why = codes.chain(&service.broken_rules).map(|(code, n)| format!("{code} {}", count(*n)));
        table.row(vec![service.name.clone(), count(service.dead_letters), why.collect::<Vec<_>>().join(", ")]);
        data.insert(
            service.name.clone(),
            serde_json::json!({
                "letters": service.dead_letters,
                "by_code": service.dead_letters_by_code,
                "by_rule": service.broken_rules,
            }),
        );
    }
    if out.json {
        out.value(&data)?;
    } else {
        out.table(&table)?;
        eprintln!(
            "{}; `millstream dlq list SERVICE` shows them",
            match status.phase {
                Phase::Stopped => "open in the log of the stopped pipeline",
                _ => "written since the node started",
            }
        );
    }
    Ok(Exit::Done)
}
