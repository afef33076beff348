//! What there is to say: families of commands, their words and flags. A flat table; the help text is made from it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Asks and changes clusters of OrbitMQ and RocketMQ.
#[derive(Parser)]
#[command(name = "orbit-admin", version, about, max_term_width = 120)]
pub struct Cli {
    /// Name servers: host:port, several separated by ';'.
    #[arg(
        short = 'n',
        long = "namesrv",
        global = true,
        env = "NAMESRV_ADDR",
        default_value = "127.0.0.1:9876"
    )]
    pub name_servers: String,
    /// Write JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long each request may take, in milliseconds.
    #[arg(long, global = true, default_value = "5000", value_name = "MS", value_parser = milliseconds)]
    pub timeout: Duration,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Clusters and who is in them.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Topics: where they are, how full, made and deleted.
    #[command(subcommand)]
    Topic(Topic),
    /// Consumer groups: who is in them, how far they are.
    #[command(subcommand)]
    Group(Group),
    /// Where groups stand, and where they are to go on.
    #[command(subcommand)]
    Offset(Offset),
    /// Single messages: found, printed, sent.
    #[command(subcommand)]
    Message(Message),
    /// Brokers: how they are, their settings.
    #[command(subcommand)]
    Broker(Broker),
    /// Name servers: their settings.
    #[command(subcommand)]
    Namesrv(Namesrv),
    /// Transactions that are open.
    #[command(subcommand)]
    Transaction(Transaction),
    /// Queues of a topic, and their index.
    #[command(subcommand)]
    Queue(Queue),
    /// Shows something again and again.
    Watch(Watch),
    /// Names the cause: of 'No route info', of lag, of queues that are shared badly.
    Doctor {
        /// Look at this topic as well.
        #[arg(short, long)]
        topic: Option<String>,
        /// Look at this group as well.
        #[arg(short, long)]
        group: Option<String>,
    },
    /// Writes what a shell needs to complete commands.
    Completion { shell: clap_complete::Shell },
}

/// Which brokers a change is for.
#[derive(Args, Clone)]
pub struct To {
    /// One broker, by name or address; all masters unless said.
    #[arg(short, long)]
    pub broker: Option<String>,
    /// The masters of one cluster.
    #[arg(short, long)]
    pub cluster: Option<String>,
}

#[derive(Subcommand)]
pub enum Cluster {
    /// Every broker, with what it does at the moment.
    #[command(visible_alias = "ls")]
    List,
}

#[derive(Subcommand)]
pub enum Topic {
    /// The names of all topics.
    #[command(visible_alias = "ls")]
    List {
        /// Those of the system, of retries and of dead letters as well.
        #[arg(short, long)]
        all: bool,
    },
    /// Where a topic is.
    Route { topic: String },
    /// How full its queues are.
    #[command(visible_alias = "stats")]
    Status { topic: String },
    /// How each broker keeps it.
    Show { topic: String },
    /// Makes a topic, or changes it.
    #[command(visible_alias = "update")]
    Create {
        topic: String,
        /// Queues to read and to write.
        #[arg(short, long, default_value_t = 8)]
        queues: i32,
        /// Queues to read, if others than those to write.
        #[arg(short, long)]
        read: Option<i32>,
        /// Queues to write.
        #[arg(short, long)]
        write: Option<i32>,
        /// 2: write, 4: read, 6: both.
        #[arg(short, long, default_value_t = 6)]
        perm: i32,
        /// Its messages are consumed in order.
        #[arg(short, long)]
        order: bool,
        /// Settings of 5.x: +message.type=FIFO,-cleanup.policy
        #[arg(short, long, default_value = "")]
        attributes: String,
        #[command(flatten)]
        to: To,
    },
    /// Changes what may be done with it: 2 write, 4 read, 6 both.
    Perm {
        topic: String,
        perm: i32,
        #[command(flatten)]
        to: To,
    },
    /// Deletes it and its messages.
    #[command(visible_alias = "rm")]
    Delete {
        topic: String,
        #[arg(short, long)]
        cluster: Option<String>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// The groups that read it.
    Groups { topic: String },
}

#[derive(Subcommand)]
pub enum Group {
    /// All groups, with their members and lag.
    #[command(visible_alias = "ls")]
    List {
        #[arg(short, long)]
        cluster: Option<String>,
    },
    /// How far it is, queue by queue.
    Progress {
        group: String,
        #[arg(short, long)]
        topic: Option<String>,
    },
    /// Who is in it, and what they subscribe to.
    #[command(visible_alias = "members")]
    Connections { group: String },
    /// Who sends under a producer group.
    Producers { group: String },
    /// How its members are: what they read, how fast.
    Running {
        group: String,
        /// Only this member.
        #[arg(short = 'i', long)]
        client: Option<String>,
        /// What their threads or tasks are at.
        #[arg(short, long)]
        stacks: bool,
    },
    /// How each broker keeps it.
    Show { group: String },
    /// Makes a group, or changes it.
    #[command(visible_alias = "update")]
    Create {
        group: String,
        /// Deliveries before a message becomes a dead letter.
        #[arg(short, long)]
        retries: Option<i32>,
        /// Queues of its retry topic.
        #[arg(long)]
        retry_queues: Option<i32>,
        /// Whether it may consume.
        #[arg(long)]
        consume: Option<bool>,
        /// Whether it may consume by broadcasting.
        #[arg(long)]
        broadcast: Option<bool>,
        /// Whether its messages are consumed in order.
        #[arg(long)]
        orderly: Option<bool>,
        #[command(flatten)]
        to: To,
    },
    /// Deletes it.
    #[command(visible_alias = "rm")]
    Delete {
        group: String,
        #[arg(short, long)]
        cluster: Option<String>,
        /// Its offsets, retries and dead letters as well.
        #[arg(long)]
        with_offsets: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// The topics it reads.
    Topics { group: String },
}

#[derive(Subcommand)]
pub enum Offset {
    /// How far a group is, queue by queue.
    Show {
        group: String,
        #[arg(short, long)]
        topic: Option<String>,
    },
    /// Lets a group go on elsewhere in a topic.
    Reset {
        group: String,
        topic: String,
        /// earliest, latest, now, a time (2024-02-29 12:00:00 UTC, milliseconds, or 90s, 10m, 2h, 1d ago), offset:N
        #[arg(long, allow_hyphen_values = true)]
        to: String,
        /// Only this queue of every broker.
        #[arg(short, long)]
        queue: Option<i32>,
        /// Only say where it would go on.
        #[arg(long)]
        dry_run: bool,
    },
    /// Skips all that a group has not consumed of a topic.
    Skip { group: String, topic: String },
    /// Gives a group the offsets of another.
    Clone {
        from: String,
        to: String,
        topic: String,
    },
}

#[derive(Subcommand)]
pub enum Message {
    /// The message with an id: of its place, or of its producer (with --topic).
    Get {
        id: String,
        #[arg(short, long)]
        topic: Option<String>,
    },
    /// Messages with a key.
    ByKey {
        topic: String,
        key: String,
        /// Of each broker.
        #[arg(short, long, default_value_t = 32)]
        max: i32,
        /// Stored at this time or later.
        #[arg(long, allow_hyphen_values = true)]
        since: Option<String>,
        /// Stored before this time.
        #[arg(long, allow_hyphen_values = true)]
        until: Option<String>,
    },
    /// The messages of a queue, from an offset on.
    ByOffset {
        topic: String,
        #[arg(short, long)]
        broker: String,
        #[arg(short, long)]
        queue: i32,
        #[arg(short, long)]
        offset: i64,
        #[arg(short, long, default_value_t = 1)]
        max: usize,
    },
    /// The messages of a topic, queue by queue.
    Print {
        topic: String,
        /// Only of this queue of every broker.
        #[arg(short, long)]
        queue: Option<i32>,
        #[arg(short, long)]
        broker: Option<String>,
        /// Only with these tags: a || b
        #[arg(short, long, default_value = "*")]
        tags: String,
        /// Stored at this time or later.
        #[arg(long, allow_hyphen_values = true)]
        since: Option<String>,
        /// Stored before this time.
        #[arg(long, allow_hyphen_values = true)]
        until: Option<String>,
        /// At most so many.
        #[arg(short, long, default_value_t = 100)]
        max: usize,
    },
    /// Sends a message.
    Send {
        topic: String,
        /// What it says; from --file or the standard input if not given.
        body: Option<String>,
        #[arg(short, long)]
        file: Option<PathBuf>,
        #[arg(short, long)]
        tag: Option<String>,
        #[arg(short, long)]
        key: Option<String>,
        /// name=value, as often as you like.
        #[arg(short, long)]
        property: Vec<String>,
        /// Deliver it so many milliseconds later.
        #[arg(short, long, value_name = "MS", value_parser = milliseconds)]
        delay: Option<Duration>,
        #[arg(short, long)]
        queue: Option<i32>,
    },
    /// Makes a member of a group consume a message now.
    Consume {
        group: String,
        client: String,
        /// The id of its place.
        id: String,
    },
    /// What became of a message, as far as its clients trace.
    Trace {
        id: String,
        #[arg(long, default_value = "RMQ_SYS_TRACE_TOPIC")]
        trace_topic: String,
    },
}

#[derive(Subcommand)]
pub enum Broker {
    /// Every broker, with what it does at the moment.
    #[command(visible_alias = "ls")]
    List,
    /// How brokers are, in all they say of themselves.
    Status {
        /// By name or address; all masters unless said.
        broker: Option<String>,
        /// Only what has this word in its name.
        #[arg(short, long)]
        filter: Option<String>,
    },
    /// Settings.
    #[command(subcommand)]
    Config(Config),
    /// Takes a broker out of the routes for writing, or puts it back.
    Writable {
        broker: String,
        #[arg(action = clap::ArgAction::Set)]
        writable: bool,
    },
}

#[derive(Subcommand)]
pub enum Config {
    /// All settings, or those with a word in their names.
    Get {
        /// By name or address.
        broker: String,
        word: Option<String>,
    },
    /// Changes a setting of a running broker.
    Set {
        name: String,
        value: String,
        #[command(flatten)]
        to: To,
    },
}

#[derive(Subcommand)]
pub enum Namesrv {
    /// All settings, or those with a word in their names.
    Config { word: Option<String> },
    /// Changes a setting of all name servers.
    Set { name: String, value: String },
}

#[derive(Subcommand)]
pub enum Transaction {
    /// Half messages that are not decided, broker by broker.
    #[command(visible_alias = "ls")]
    List,
    /// Has a broker ask about a half message again, after its checks were used up.
    Resume {
        topic: String,
        /// The id of its place.
        id: String,
    },
}

#[derive(Subcommand)]
pub enum Queue {
    /// How full the queues of a topic are.
    #[command(visible_alias = "ls")]
    List { topic: String },
    /// Entries of a queue's index.
    Show {
        topic: String,
        #[arg(short, long)]
        broker: String,
        #[arg(short, long)]
        queue: i32,
        #[arg(short, long, default_value_t = 0)]
        offset: i64,
        #[arg(short, long, default_value_t = 10)]
        max: i32,
    },
}

#[derive(Args)]
pub struct Watch {
    #[arg(value_enum)]
    pub what: Watched,
    /// The topic or group.
    pub name: Option<String>,
    /// Milliseconds between two looks.
    #[arg(short, long, default_value = "1000", value_name = "MS", value_parser = milliseconds)]
    pub interval: Duration,
    /// Stop after so many looks.
    #[arg(long)]
    pub times: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Watched {
    /// Messages a second of every broker.
    Brokers,
    /// Messages of a topic, and how many more every second.
    Topic,
    /// How far a group is, and how fast.
    Group,
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_flags_are_alike() {
        Cli::command().debug_assert();
    }
}
