//! What each command asks of a cluster, by family.

mod broker;
mod cluster;
mod doctor;
mod group;
mod message;
mod offset;
mod queue;
mod topic;
mod transaction;
mod watch;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use orbitmq_client::Error;
use orbitmq_client::admin::{Admin, Broker};

use crate::cli::{Cli, Command, To};
use crate::output::Output;

/// Why a command did not do what it was told.
#[derive(Debug)]
pub enum Failure {
    Client(Error),
    Told(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Client(error @ Error::Connect { .. }) => {
                write!(
                    out,
                    "{error}\nIs it running there? Name servers are named by -n host:port or NAMESRV_ADDR; orbit-admin doctor looks closer."
                )
            }
            Failure::Client(error @ Error::NoRoute { topic }) => {
                write!(out, "{error}: orbit-admin doctor --topic {topic} says why")
            }
            Failure::Client(error) => write!(out, "{error}"),
            Failure::Told(what) => out.write_str(what),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Client(error)
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure::Told(what)
    }
}

pub type Done = Result<(), Failure>;

pub async fn run(cli: Cli, output: &Output) -> Result<ExitCode, Failure> {
    if let Command::Completion { shell } = cli.command {
        let mut out = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "orbit-admin", &mut out);
        // A reader that has gone needs nothing completed.
        let _ = std::io::stdout().write_all(&out);
        return Ok(ExitCode::SUCCESS);
    }
    let admin = Admin::new(&cli.name_servers)?.timeout(cli.timeout);
    match cli.command {
        Command::Cluster(command) => cluster::run(&admin, command, output).await?,
        Command::Topic(command) => topic::run(&admin, command, output).await?,
        Command::Group(command) => group::run(&admin, command, output).await?,
        Command::Offset(command) => offset::run(&admin, command, output).await?,
        Command::Message(command) => {
            message::run(&admin, &cli.name_servers, command, output).await?;
        }
        Command::Broker(command) => broker::run(&admin, command, output).await?,
        Command::Namesrv(command) => broker::namesrv(&admin, command, output).await?,
        Command::Transaction(command) => transaction::run(&admin, command, output).await?,
        Command::Queue(command) => queue::run(&admin, command, output).await?,
        Command::Watch(command) => watch::run(&admin, command, output).await?,
        Command::Doctor { topic, group } => {
            return Ok(doctor::run(&admin, topic, group, output).await);
        }
        Command::Completion { .. } => unreachable!("written above"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The brokers a change is for.
async fn brokers(admin: &Admin, to: &To) -> Result<Vec<Broker>, Failure> {
    let brokers = admin
        .targets(to.broker.as_deref(), to.cluster.as_deref())
        .await?;
    match brokers.is_empty() {
        true => Err(Failure::Told("no broker is registered".to_owned())),
        false => Ok(brokers),
    }
}

/// What cannot be undone is asked about, unless it was said to be meant.
fn confirm(what: &str, yes: bool) -> Done {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Told(format!("{what}: say --yes if that is meant")));
    }
    eprint!("{what}? [y/N] ");
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::Told("nothing was done".to_owned())),
    }
}
