//! One name server and one broker, started with their own configuration in a folder of their own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Compare, ORBIT, ROCKETMQ};
use crate::child::Child;
use crate::control::{Control, resolve};
use crate::error::{Error, Result};

pub struct Contender {
    pub name: &'static str,
    pub broker: SocketAddr,
    /// The name server, then the broker.
    children: [Child; 2],
}

/// The broker also listens two below and one above its port.
struct Ports {
    namesrv: u16,
    broker: u16,
}

const ORBIT_PORTS: Ports = Ports {
    namesrv: 41_876,
    broker: 41_911,
};
const ROCKETMQ_PORTS: Ports = Ports {
    namesrv: 42_876,
    broker: 42_911,
};
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// What the JVM needs since Java 17 to let RocketMQ reach into it.
const JVM_OPENS: &str = "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED \
    --add-exports=java.base/sun.nio.ch=ALL-UNNAMED --add-opens=java.base/sun.nio.ch=ALL-UNNAMED \
    --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.util=ALL-UNNAMED";
/// The settings that RocketMQ's own start script gives its broker.
const JVM_BROKER: &str = "-server -XX:+UseG1GC -XX:G1HeapRegionSize=16m -XX:G1ReservePercent=25 \
    -XX:InitiatingHeapOccupancyPercent=30 -XX:SoftRefLRUPolicyMSPerMB=0 -XX:-OmitStackTraceInFastThrow \
    -XX:+AlwaysPreTouch -XX:MaxDirectMemorySize=15g -XX:-UseLargePages";
/// Warnings only, to standard output; else RocketMQ writes its logs into the home folder.
const LOGBACK: &str = r#"<configuration><appender name="o" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d %p %c - %m%n</pattern></encoder></appender><root level="WARN"><appender-ref ref="o"/></root></configuration>"#;

pub fn start_orbit(command: &Compare, home: &Path) -> Result<Contender> {
    let broker = match &command.orbit_broker {
        Some(path) => path.clone(),
        None => beside_this_program("orbit-broker")?,
    };
    let broker = absolute(&broker)?;
    let namesrv = broker.with_file_name("orbit-namesrv");
    let conf = write_confs(home, &ORBIT_PORTS, &command.orbit_set)?;
    let namesrv = format!("'{}' -c '{}'", namesrv.display(), conf.namesrv.display());
    let broker = format!("'{}' -c '{}'", broker.display(), conf.broker.display());
    start(ORBIT, &ORBIT_PORTS, home, &namesrv, &broker)
}

pub fn start_rocketmq(command: &Compare, home: &Path) -> Result<Contender> {
    let lib = absolute(&command.rocketmq_lib).map_err(|_| {
        let lib = command.rocketmq_lib.display();
        Error::Failed(format!(
            "no jars in {lib}: run scripts/fetch-rocketmq, or give --rocketmq-lib"
        ))
    })?;
    let conf = write_confs(home, &ROCKETMQ_PORTS, &command.rocketmq_set)?;
    let logging = home.join("conf");
    fs::create_dir_all(&logging).map_err(Error::io("making the folder for logging"))?;
    for role in ["namesrv", "broker"] {
        let file = logging.join(format!("logback_{role}.xml"));
        fs::write(file, LOGBACK).map_err(Error::io("writing the logging configuration"))?;
    }
    let java = |memory: &str, class: &str, conf: &Path| {
        format!(
            "env ROCKETMQ_HOME='{home}' java {memory} -Duser.home='{home}' {JVM_OPENS} -cp '{lib}/*' {class} -c '{conf}'",
            home = home.display(),
            lib = lib.display(),
            conf = conf.display()
        )
    };
    let namesrv = java(
        "-Xmx256m",
        "org.apache.rocketmq.namesrv.NamesrvStartup",
        &conf.namesrv,
    );
    let memory = format!("-Xms{heap} -Xmx{heap} {JVM_BROKER}", heap = command.heap);
    let broker = java(
        &memory,
        "org.apache.rocketmq.broker.BrokerStartup",
        &conf.broker,
    );
    start(ROCKETMQ, &ROCKETMQ_PORTS, home, &namesrv, &broker)
}

struct Confs {
    namesrv: PathBuf,
    broker: PathBuf,
}

/// The same keys for both: this is what a user's files look like.
fn write_confs(home: &Path, ports: &Ports, further: &[String]) -> Result<Confs> {
    fs::create_dir_all(home).map_err(Error::io(format!("making {}", home.display())))?;
    let confs = Confs {
        namesrv: home.join("namesrv.conf"),
        broker: home.join("broker.conf"),
    };
    let namesrv = format!(
        "listenPort={}\nbindAddress=127.0.0.1\nrocketmqHome={}\n",
        ports.namesrv,
        home.display()
    );
    let store = home.join("store");
    let mut broker = format!(
        "brokerName=bench\nbrokerClusterName=DefaultCluster\nbrokerId=0\nbrokerIP1=127.0.0.1\nbindAddress=127.0.0.1\n\
         namesrvAddr=127.0.0.1:{}\nlistenPort={}\nhaListenPort={}\nstorePathRootDir={store}\n\
         storePathCommitLog={store}/commitlog\nautoCreateTopicEnable=true\nflushDiskType=ASYNC_FLUSH\n",
        ports.namesrv,
        ports.broker,
        ports.broker + 1,
        store = store.display()
    );
    for line in further {
        broker.push_str(line);
        broker.push('\n');
    }
    fs::write(&confs.namesrv, namesrv)
        .and_then(|()| fs::write(&confs.broker, broker))
        .map_err(Error::io("writing the configurations"))?;
    Ok(confs)
}

fn start(
    name: &'static str,
    ports: &Ports,
    home: &Path,
    namesrv: &str,
    broker: &str,
) -> Result<Contender> {
    for port in [ports.namesrv, ports.broker] {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Err(Error::Failed(format!(
                "port {port} is taken; {name} was to listen there"
            )));
        }
    }
    let mut first = Child::start(namesrv, &home.join("namesrv.log"))?;
    wait_until_listening(name, ports.namesrv, &mut first)?;
    let mut second = Child::start(broker, &home.join("broker.log"))?;
    wait_until_listening(name, ports.broker, &mut second)?;
    Ok(Contender {
        name,
        broker: resolve(&format!("127.0.0.1:{}", ports.broker))?,
        children: [first, second],
    })
}

fn wait_until_listening(name: &str, port: u16, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if !child.is_alive() || Instant::now() > deadline {
            let log = child.log_tail();
            return Err(Error::Failed(format!(
                "{name} does not listen on port {port}; its log ends with:\n{log}"
            )));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

impl Contender {
    pub fn broker_pid(&self) -> u32 {
        self.children[1].pid()
    }

    pub fn control(&self) -> Result<Control> {
        Control::connect(self.broker)
    }

    /// Takes both processes off the CPU while the other side is measured.
    pub fn pause(&self) -> Result<()> {
        self.children
            .iter()
            .try_for_each(|child| child.signal(Signal::STOP))
    }

    pub fn resume(&self) -> Result<()> {
        self.children
            .iter()
            .try_for_each(|child| child.signal(Signal::CONT))
    }

    pub fn stop(self) -> Result<()> {
        self.resume()?;
        let [namesrv, broker] = self.children;
        broker.stop(STOP_LIMIT)?;
        namesrv.stop(STOP_LIMIT)?;
        Ok(())
    }
}

fn beside_this_program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::io("finding this program"))?;
    Ok(own.with_file_name(name))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .map_err(Error::io(format!("looking for {}", path.display())))
}
