//! `interleaf serve`: sockets in front of a store.

use std::process::ExitCode;
use std::time::Duration;

use interleaf_store::StoreOptions;
use interleaf_store::url::{HostPort, StoreUrl};

use crate::context::Context;
use crate::serve::{self, HTTP_PORT, HttpSetting, Settings, detach};

/// Seconds of `--idle-exit` where none are given.
const IDLE_SECONDS: &str = "60";

/// At the start the store may take so many times the usual wait: a cluster that recovers, as
/// when both were started together, takes longer than what a client should wait for.
const START_FACTOR: u32 = 6;

/// Serves a store to clients on this machine and others.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    interleaf serve --store dir:/srv/data\n  \
    interleaf serve --store dir:/srv/data --listen tcp://127.0.0.1:7000 --http off\n\n\
    An embedded store's own socket, /path/interleaf.sock, is always listened on. Without --listen \
    also tcp://127.0.0.1:7480, without --http also http 127.0.0.1:7481; where another program has \
    one of these two, the server does without. An address that is named and taken is an error.")]
pub struct Args {
    /// An address: unix:/path.sock or tcp://host:port; may be given several times
    #[arg(long, value_name = "URL")]
    listen: Vec<StoreUrl>,
    /// Where to serve /healthz and /metrics: host:port or "off"
    #[arg(long, value_name = "ADDR", value_parser = parse_http)]
    http: Option<HttpSetting>,
    /// Stop when there was no client for so many seconds (60); listen on the store's socket only
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = IDLE_SECONDS,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    idle_exit: Option<u32>,
    /// Permissions of Unix sockets, octal
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = parse_mode)]
    socket_mode: u32,
    /// Listen where other machines reach it, without tokens and TLS
    #[arg(long)]
    allow_insecure: bool,
    /// Memory for the engine's caches and buffers, as in 256M
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Most connections at once
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "1024",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    max_connections: u32,
    /// Return when the server is ready, and leave it running in the background
    #[arg(long)]
    detach: bool,
}

/// Runs the server until it is stopped.
///
/// # Errors
/// Where the store or an address cannot be had.
pub fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    if args.detach && !detach::is_second() {
        detach::start(&context.store)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.detach {
        detach::leave_session()?;
    }
    let settings = Settings {
        store: context.store.clone(),
        listen: args.listen,
        http: args.http.unwrap_or(HttpSetting::Default),
        idle_exit: args.idle_exit.map(|seconds| Duration::from_secs(seconds.into())),
        socket_mode: args.socket_mode,
        allow_insecure: args.allow_insecure,
        memory_bytes: args.memory.unwrap_or(StoreOptions::default().memory_bytes),
        max_connections: usize::try_from(args.max_connections)?,
        open_timeout: context.config.timeout.saturating_mul(START_FACTOR),
    };
    serve::run(&settings, &context.env)?;
    Ok(ExitCode::SUCCESS)
}

fn parse_http(text: &str) -> Result<HttpSetting, String> {
    if text == "off" {
        return Ok(HttpSetting::Off);
    }
    // The same form as a server's address, with another default port.
    let named = if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        text.to_owned()
    } else {
        format!("{text}:{HTTP_PORT}")
    };
    match format!("tcp://{named}").parse() {
        Ok(StoreUrl::Tcp(hosts)) => match <[HostPort; 1]>::try_from(hosts) {
            Ok([at]) => Ok(HttpSetting::At(at)),
            Err(_) => Err("one host:port".into()),
        },
        _ => Err("host:port or \"off\"".into()),
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600)
        .ok_or_else(|| {
            "an octal number from 0600 to 0777 in which the owner reads and writes".into()
        })
}

/// `67108864`, `64M`, `1G`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 16 << 20;
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (text.get(..at).unwrap_or_default(), 1 << 10),
        Some((at, 'M' | 'm')) => (text.get(..at).unwrap_or_default(), 1 << 20),
        Some((at, 'G' | 'g')) => (text.get(..at).unwrap_or_default(), 1 << 30),
        _ => (text, 1u64),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes >= LEAST)
        .ok_or_else(|| format!("a number of bytes, as in 256M, at least {}M", LEAST >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        assert_eq!(parse_bytes("256M").unwrap(), 256 << 20);
        assert_eq!(parse_bytes("2G").unwrap(), 2 << 30);
        assert_eq!(parse_bytes("33554432").unwrap(), 32 << 20);
        for bad in ["", "M", "1K", "-1", "1T", "99999999999999999999G", "64MM"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_mode("0660").unwrap(), 0o660);
        for bad in ["0999", "0400", "01777", "x"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
        let at = |host: &str, port| HttpSetting::At(HostPort { host: host.into(), port });
        assert_eq!(parse_http("off").unwrap(), HttpSetting::Off);
        assert_eq!(parse_http("127.0.0.1:80").unwrap(), at("127.0.0.1", 80));
        assert_eq!(parse_http("localhost").unwrap(), at("localhost", 7481));
        assert_eq!(parse_http("[::1]:9").unwrap(), at("::1", 9));
        assert!(parse_http("a:1,b:2").is_err());
        assert!(parse_http("").is_err());
    }
}
