//! A CQL server: Apache Cassandra 5.0.5 from Maven, as plain Java processes.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Node, Peers, Ready, Server, install};
use crate::certs::Tls;
use crate::ports::{self, Holder};
use crate::process::Launch;

const POM: &str = include_str!("../../cql-pom.xml");

/// Java releases this server runs on.
const JAVA: std::ops::RangeInclusive<u32> = 11..=23;

const EXPORTS: &[&str] = &[
    "java.base/jdk.internal.misc",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
    "jdk.attach/sun.tools.attach",
];

const OPENS: &[&str] = &[
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];

const LOGBACK: &str = r#"<configuration><appender name="S" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{20} %msg%n</pattern></encoder></appender><root level="INFO"><appender-ref ref="S"/></root></configuration>
"#;

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Cql {
    /// Nodes, on a loopback address each, all on one port; 0 is 1.
    pub nodes: u8,
    /// An acknowledged write of a lone node outlives its SIGKILL; dearer by half (`commitlog_sync: batch`).
    pub durable: bool,
    /// Clients sign in, as `cassandra` with that password.
    pub auth: bool,
    /// Clients speak TLS.
    pub tls: Option<Tls>,
}

impl Cql {
    /// Installs it when missing and starts it: about 8 s for one node, under a minute for three.
    ///
    /// # Errors
    /// When either fails.
    pub async fn start(self) -> Result<Server> {
        tokio::task::spawn_blocking(move || self.start_blocking()).await?
    }

    pub(super) fn start_blocking(&self) -> Result<Server> {
        let login = self.auth.then(|| ("cassandra".to_owned(), "cassandra".to_owned()));
        Server::start(login, |folder| self.plan(folder, &Holder::own()))
    }

    /// Says how to run it in `folder`, on a network of `holder`. The nodes are to be started together.
    ///
    /// # Errors
    /// When it cannot be installed, or the folder cannot be written.
    pub fn plan(&self, folder: &Path, holder: &Holder) -> Result<Vec<Node>> {
        let (java, release) = java()?;
        let jars = jars()?;
        let (addresses, ports) = ports::network(self.nodes.max(1).into(), 2, holder)?;
        let (storage, clients) = (ports[0], ports[1]);
        let plan = |(index, address): (usize, &Ipv4Addr)| {
            let name = format!("cql-{}", index + 1);
            let home = folder.join(&name);
            fs::create_dir_all(&home)?;
            let seeds: Vec<_> = addresses.iter().map(|seed| format!("{seed}:{storage}")).collect();
            let others = seeds.iter().enumerate().filter(|(other, _)| *other != index);
            let others = others.map(|(_, peer)| format!("/{peer} is now UP"));
            let place = Place {
                address: *address,
                token: token(index, addresses.len()),
                seeds: seeds.join(","),
                storage,
                clients,
            };
            fs::write(home.join("cassandra.yaml"), self.config(&home, &place))?;
            fs::write(home.join("logback.xml"), LOGBACK)?;
            Ok(Node {
                address: format!("{address}:{clients}"),
                launch: Launch {
                    program: java.clone(),
                    args: arguments(&home, &jars, release),
                    env: Vec::new(),
                    log: folder.join(format!("{name}.log")),
                },
                ready: Ready::Logged("Starting listening for CQL clients".to_owned()),
                patience: Duration::from_secs(150),
                peers: Peers::Logged(others.collect()),
                name,
            })
        };
        addresses.iter().enumerate().map(plan).collect()
    }

    fn config(&self, home: &Path, place: &Place) -> String {
        let Place { address, token, seeds, storage, clients } = place;
        let home = home.display();
        let sync = if self.durable {
            "commitlog_sync: batch"
        } else {
            "commitlog_sync: periodic\ncommitlog_sync_period: 1000ms"
        };
        let auth =
            if self.auth { "authenticator: PasswordAuthenticator\nauthorizer: CassandraAuthorizer\n" } else { "" };
        let tls = self.tls.as_ref().map(|tls| pem(&home.to_string(), tls)).unwrap_or_default();
        format!(
            "cluster_name: linnet-local
num_tokens: 1
initial_token: {token}
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: [ \"{home}/data\" ]
commitlog_directory: \"{home}/commitlog\"
saved_caches_directory: \"{home}/saved_caches\"
hints_directory: \"{home}/hints\"
cdc_raw_directory: \"{home}/cdc\"
{sync}
commitlog_segment_size: 8MiB
commitlog_total_space: 64MiB
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [ {{ seeds: \"{seeds}\" }} ]
listen_address: {address}
rpc_address: {address}
storage_port: {storage}
native_transport_port: {clients}
start_native_transport: true
endpoint_snitch: SimpleSnitch
auto_snapshot: false
concurrent_reads: 8
concurrent_writes: 16
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
file_cache_size: 32MiB
key_cache_size: 8MiB
counter_cache_size: 2MiB
disk_optimization_strategy: ssd
{auth}{tls}"
        )
    }
}

/// Where one node is.
struct Place {
    address: Ipv4Addr,
    token: i64,
    seeds: String,
    storage: u16,
    clients: u16,
}

/// Evenly spread tokens, known beforehand: new nodes have nothing to hand over, so they may all start at once.
fn token(index: usize, nodes: usize) -> i64 {
    let step = u64::MAX / nodes as u64;
    i64::MIN.wrapping_add_unsigned(step * index as u64)
}

/// Client encryption from PEM files; the key and the certificates are one file there.
fn pem(home: &str, tls: &Tls) -> String {
    let read = |file: &Path| fs::read_to_string(file).unwrap_or_default();
    let both = format!("{home}/server.pem");
    let _ = fs::write(&both, format!("{}{}", read(&tls.key), read(&tls.cert)));
    format!(
        "client_encryption_options:
  enabled: true
  optional: false
  keystore: \"{both}\"
  truststore: \"{}\"
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
",
        tls.ca.display()
    )
}

fn arguments(home: &Path, jars: &Path, release: u32) -> Vec<String> {
    let heap = std::env::var("LINNET_CQL_HEAP").unwrap_or_else(|_| "448m".to_owned());
    let mut args = vec![format!("-Xms{heap}"), format!("-Xmx{heap}"), "-XX:+UseSerialGC".to_owned()];
    // Half the processor time until it takes clients: the quick compiler only, and jars from a package are not verified.
    let quick = ["-XX:TieredStopAtLevel=1", "-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote"];
    args.extend(quick.map(str::to_owned));
    if release >= 18 {
        args.push("-Djava.security.manager=allow".to_owned());
    }
    let modules = [("--add-exports", EXPORTS), ("--add-opens", OPENS)];
    for (flag, names) in modules {
        args.extend(names.iter().flat_map(|name| [flag.to_owned(), format!("{name}=ALL-UNNAMED")]));
    }
    let home = home.display();
    let jars = jars.display();
    args.extend([
        "-Djdk.attach.allowAttachSelf=true".to_owned(),
        format!("-Dcassandra.config=file://{home}/cassandra.yaml"),
        format!("-Dcassandra.storagedir={home}"),
        format!("-Dlogback.configurationFile={home}/logback.xml"),
        "-Dcassandra-foreground=yes".to_owned(),
        "-Dcassandra.skip_wait_for_gossip_to_settle=0".to_owned(),
        // Below 2 s a third node fails to join nodes that have data.
        "-Dcassandra.ring_delay_ms=2000".to_owned(),
        "-Dcassandra.superuser_setup_delay_ms=0".to_owned(),
        format!("-javaagent:{jars}/jamm-0.4.0.jar"),
        "-cp".to_owned(),
        format!("{home}:{jars}/*"),
        "org.apache.cassandra.service.CassandraDaemon".to_owned(),
    ]);
    args
}

/// A Java of a release the server runs on, and which.
fn java() -> Result<(PathBuf, u32)> {
    let usable = || {
        let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
        let known = home.into_iter().chain(install::find("java"));
        let debian = ["/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "/usr/lib/jvm/java-17-openjdk-arm64/bin/java"];
        let all = known.chain(debian.map(PathBuf::from));
        all.filter_map(|java| Some((release(&java)?, java))).find(|(release, _)| JAVA.contains(release))
    };
    if usable().is_none() {
        let what = "Java 17 (for the CQL server)";
        install::apt(&["openjdk-17-jre-headless"], what).or_else(|_| install::apt(&["default-jre-headless"], what))?;
    }
    let (release, java) = usable().context("no Java between 11 and 23 (for the CQL server); set JAVA_HOME")?;
    Ok((java, release))
}

/// The release a `java` says it is: `openjdk version "17.0.15" 2025-04-15`.
fn release(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.split('"').nth(1)?.split(['.', '-', '+']).next()?.parse().ok()
}

fn jars() -> Result<PathBuf> {
    install::once("cassandra-5.0.5", |folder| {
        if install::find("mvn").is_none() {
            install::apt(&["maven"], "Maven (to fetch the CQL server)")?;
        }
        let pom = folder.join("pom.xml");
        fs::write(&pom, POM)?;
        let mut mvn = Command::new("mvn");
        mvn.args(["-q", "-B", "-f"]).arg(&pom).arg("dependency:copy-dependencies");
        mvn.arg(format!("-DoutputDirectory={}", folder.display())).arg("-DincludeScope=runtime");
        install::run(&mut mvn)
    })
}
