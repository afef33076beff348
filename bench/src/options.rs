//! Flags that several commands share, and how they become a plan's address and lanes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::control::{Control, resolve};
use crate::error::{Error, Result};
use crate::load::Lane;
use crate::load::produce::Settings;
use crate::payload::BODY_BYTES_MIN;
use crate::wire::Encoding;

#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Name server, host:port; the broker is asked from it, and topics are waited for until they are routed
    #[arg(long, env = "NAMESRV_ADDR")]
    pub namesrv: Option<String>,
    /// Broker, host:port; goes before what the name server says
    #[arg(long)]
    pub broker: Option<String>,
    /// The broker's process: its CPU time and memory are reported
    #[arg(long)]
    pub pid: Option<u32>,
    /// Pin the generator to this CPU
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Encoding of request headers
    #[arg(long, value_enum, default_value = "json")]
    pub encoding: Encoding,
    /// Write the figures to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl Target {
    pub fn broker(&self) -> Result<SocketAddr> {
        match (&self.broker, self.namesrv_control()?) {
            (Some(broker), _) => resolve(broker),
            (None, Some(mut namesrv)) => namesrv.first_master(),
            (None, None) => Err(Error::Failed("give --broker or --namesrv".into())),
        }
    }

    pub fn namesrv_control(&self) -> Result<Option<Control>> {
        // A list of name servers: any one will do.
        let first = self
            .namesrv
            .as_deref()
            .and_then(|list| list.split(';').next());
        first
            .map(|address| Control::connect(resolve(address)?))
            .transpose()
    }
}

#[derive(Args, Clone, Debug)]
pub struct Topics {
    /// Name of the topic; with several topics, what their names begin with
    #[arg(long, default_value = "orbit-bench")]
    pub topic: String,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub topics: u32,
    /// Queues of each topic
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub queues: u32,
    /// The topics are there already
    #[arg(long)]
    pub no_create: bool,
}

impl Topics {
    pub fn names(&self) -> impl Iterator<Item = String> {
        let single = self.topics == 1;
        (0..self.topics).map(move |index| match single {
            true => self.topic.clone(),
            false => format!("{}-{index}", self.topic),
        })
    }

    /// Topic by topic within queue by queue, so that neighbours in time go to different topics.
    pub fn lanes(&self) -> Vec<Lane> {
        let of_queue = |queue| self.names().map(move |topic| Lane { topic, queue });
        (0..self.queues).flat_map(of_queue).collect()
    }

    /// Creates the topics and waits until the name server routes them.
    pub fn prepare(&self, target: &Target, broker: &mut Control) -> Result<()> {
        if self.no_create {
            return Ok(());
        }
        for topic in self.names() {
            broker.create_topic(&topic, self.queues)?;
        }
        if let Some(mut namesrv) = target.namesrv_control()? {
            for topic in self.names() {
                namesrv.wait_for_route(&topic)?;
            }
        }
        Ok(())
    }
}

#[derive(Args, Clone, Debug)]
pub struct Sending {
    #[arg(long, short = 'c', default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub connections: u16,
    /// Requests in flight on each connection
    #[arg(long, short = 'd', default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=16384))]
    pub depth: u16,
    /// Bytes of a message's body
    #[arg(long, short = 's', default_value_t = 1024, value_parser = body_bytes)]
    pub size: usize,
    /// Messages in one request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: u16,
    /// Open loop: this many requests a second, latency counted from the intended start
    #[arg(long)]
    pub rate: Option<f64>,
}

impl Sending {
    pub fn settings(&self, encoding: Encoding) -> Settings {
        Settings {
            connections: usize::from(self.connections),
            depth: usize::from(self.depth),
            body_bytes: self.size,
            batch: usize::from(self.batch),
            rate: self.rate,
            ..Settings::one_at_a_time(encoding)
        }
    }
}

fn body_bytes(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (BODY_BYTES_MIN..=4 << 20).contains(&bytes) => Ok(bytes),
        _ => Err(format!("a number from {BODY_BYTES_MIN} to {}", 4 << 20)),
    }
}

#[derive(Args, Clone, Debug)]
pub struct Window {
    /// Seconds that are measured
    #[arg(long, short = 't', default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
}
