//! The command line: one file per command, each a client of the public API except `serve` and `bench`, and those that look
//! at a bucket (`inspect`, `verify`, `restore`).
//!
//! Results go to stdout as JSON, one object per line for lists; what is said to people goes to stderr. Exit codes:
//! 0 done, 1 failed, 2 used wrongly (flags, settings, environment), 3 stopped because another process took over, 130
//! interrupted.

mod bench;
mod bucket;
mod class;
mod client;
mod healthcheck;
mod inspect;
mod interrupt;
mod issuers;
mod keys;
mod limits;
mod lines;
mod output;
mod prices;
mod publish;
mod quotas;
mod restore;
mod revocations;
mod serve;
mod subscribe;
mod table;
mod tenants;
mod tokens;
mod topics;
mod usage;
mod verify;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use plinth_storage::Kind;
use plinth_storage::error::Chain;
use plinth_storage::store::ObjectStores;

use self::interrupt::Interrupted;
use crate::config::{ConfigError, check_environment};

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 used wrongly, 3 stopped because another process took over, 130 interrupted";

/// How long threads that look at a local state may take to end: a step of a scan, a piece of an object.
const LAST_LOOKS: Duration = Duration::from_secs(5);

/// The code of a command that failed.
const FAILED: u8 = 1;

/// A message queue for people who speak only HTTP, on an object store.
#[derive(Debug, Parser)]
#[command(name = "plinth", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(serve::Args),
    /// Publish what comes on stdin
    Publish(publish::Args),
    /// Follow topics and print their records
    Subscribe(subscribe::Args),
    /// List, view, create, change and delete topics
    Topics(topics::Args),
    /// List, view, create, change, suspend, resume and delete tenants (root key)
    Tenants(tenants::Args),
    /// List, view, create, change, rotate and delete API keys of a tenant
    Keys(keys::Args),
    /// Mint tokens that may do less than a key
    Tokens(tokens::Args),
    /// List, view, trust and forget the issuers of a tenant's tokens
    Issuers(issuers::Args),
    /// List what is revoked, and revoke keys, tokens and the tokens of a subject
    Revocations(revocations::Args),
    /// Why a credential may or may not do a thing
    Auth(tokens::AuthArgs),
    /// Show the quotas of the tenant with what is used of them, and every limit
    Quotas(usage::QuotasArgs),
    /// Show what the tenant used, by minute or hour
    Usage(usage::Args),
    /// Ask a node whether it is alive: exit code 0 or 1
    Healthcheck(healthcheck::Args),
    /// Show what is in a bucket: sessions, shards, topics, bytes, cost
    Inspect(inspect::Args),
    /// Read a whole bucket and name every fault: exit code 0 whole, 1 faults, 2 could not look
    Verify(verify::Args),
    /// Copy a bucket as it was at a time into another, empty one
    Restore(restore::Args),
    /// Measure a node
    Bench(Box<bench::Args>),
    /// The bare HTTP handler that `bench` compares with
    #[command(hide = true)]
    BenchBaseline(bench::baseline::Args),
}

/// Parses the command line, runs the command and says how it went.
#[must_use]
pub fn run() -> ExitCode {
    let command = command();
    let known = variables(&command);
    let cli = match command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = check_environment(&known, std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
        .map_err(anyhow::Error::from)
        .and_then(|()| start(cli.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(&format!("error: {}", Chain(&*error)));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The command was used wrongly in a way that only its own code can see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// What was to be looked at could not be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreadable(String);

/// The node stopped because another process has taken over its shards.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Fenced(String);

/// A store that was opened: a URL that names none, or a directory that cannot be used, is a wrong use.
fn opened(opened: plinth_storage::Result<ObjectStores>) -> anyhow::Result<ObjectStores> {
    opened.map_err(
        |error| {
            if error.kind() == Kind::Invalid { Usage(Chain(&error).to_string()).into() } else { error.into() }
        },
    )
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Fenced>() {
        3
    } else if error.is::<Usage>() || error.is::<ConfigError>() || error.is::<Unreadable>() {
        2
    } else if error.is::<Interrupted>() {
        130
    } else {
        FAILED
    }
}

fn start(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // A thread that still waits for stdin must not hold up the end of the program. One that looks at a local state has to be out
    // of it: what is under it is taken down with the program.
    let has_state = matches!(
        command,
        Command::Serve(_) | Command::Inspect(_) | Command::Verify(_) | Command::Restore(_) | Command::Bench(_)
    );
    let result = runtime.block_on(dispatch(command));
    runtime.shutdown_timeout(if has_state { LAST_LOOKS } else { Duration::ZERO });
    result
}

async fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Publish(args) => publish::run(args).await,
        Command::Subscribe(args) => subscribe::run(args).await,
        Command::Topics(args) => topics::run(args).await,
        Command::Tenants(args) => tenants::run(args).await,
        Command::Keys(args) => keys::run(args).await,
        Command::Tokens(args) => tokens::run(args).await,
        Command::Issuers(args) => issuers::run(args).await,
        Command::Revocations(args) => revocations::run(args).await,
        Command::Auth(args) => tokens::run_auth(args).await,
        Command::Quotas(args) => usage::run_quotas(args).await,
        Command::Usage(args) => usage::run(args).await,
        Command::Healthcheck(args) => healthcheck::run(args).await,
        Command::Inspect(args) => inspect::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Restore(args) => restore::run(args).await,
        Command::Bench(args) => bench::run(*args).await,
        Command::BenchBaseline(args) => bench::baseline::run(args).await,
    }
}

/// The whole command, with the list of variables at the end of `plinth --help`.
fn command() -> clap::Command {
    let bare = Cli::command();
    let mut text = String::from("Environment (each is also a flag of the commands that use it):\n");
    for name in variables(&bare) {
        let help = bare
            .get_subcommands()
            .flat_map(clap::Command::get_arguments)
            .chain(
                bare.get_subcommands().flat_map(clap::Command::get_subcommands).flat_map(clap::Command::get_arguments),
            )
            .find(|argument| argument.get_env().is_some_and(|env| env == name.as_str()))
            .map(help_of)
            .unwrap_or_default();
        let _ = writeln!(text, "  {name:<35} {help}");
    }
    text.push('\n');
    text.push_str(EXIT_CODES);
    bare.after_help(text)
}

/// The help of an argument with its default, which clap only adds where the argument itself is listed.
fn help_of(argument: &clap::Arg) -> String {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    match argument.get_default_values() {
        [default] => format!("{help} [default: {}]", default.to_string_lossy()),
        _ => help,
    }
}

/// Every environment variable that some flag reads.
fn variables(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_help_names_every_variable() {
        let mut command = command();
        command.clone().debug_assert();
        let help = command.render_help().to_string();
        for name in [
            "PLINTH_LISTEN",
            "PLINTH_STORE",
            "PLINTH_CACHE_DIR",
            "PLINTH_ROOT_KEY",
            "PLINTH_CONFIG",
            "PLINTH_URL",
            "PLINTH_KEY",
            "PLINTH_TENANT",
            "PLINTH_LOG",
            "PLINTH_TLS_CERT",
            "PLINTH_CA_CERT",
        ] {
            assert!(help.contains(name), "{name}");
        }
    }

    #[test]
    fn the_help_of_serve_states_the_defaults_that_hold() {
        let mut command = command();
        let serve = command.find_subcommand_mut("serve").expect("there is one");
        let help = serve.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let unset = ["#root_key", "#public_url", "#tls_", "#otlp_endpoint", "#private_hosts"];
        let shown = |line: &&str| !unset.iter().any(|unset| line.starts_with(unset));
        let example = include_str!("../../plinth.toml");
        for line in example.lines().filter(|line| line.starts_with('#') && line.contains(" = ")).filter(shown) {
            let Some((_, value)) = line.split_once(" = ") else { continue };
            let default = format!("[default: {}]", value.trim_matches('"'));
            assert!(help.contains(&default), "{default}");
        }
    }

    #[test]
    fn every_kind_of_failure_has_its_exit_code() {
        assert_eq!(exit_code(&anyhow::anyhow!("some failure")), 1);
        assert_eq!(exit_code(&Usage("no topic".to_owned()).into()), 2);
        assert_eq!(exit_code(&anyhow::Error::from(Unreadable("away".to_owned()))), 2);
        assert_eq!(exit_code(&ConfigError::UnknownVariables(vec!["PLINTH_X".to_owned()]).into()), 2);
        assert_eq!(exit_code(&anyhow::Error::from(Fenced("taken over".to_owned())).context("stopped")), 3);
        assert_eq!(exit_code(&anyhow::Error::from(Interrupted).context("stopped")), 130);
    }
}
