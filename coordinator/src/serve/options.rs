//! What `serve` is told, and what it tells.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The directory of everything that the coordinator keeps
    #[arg(long, value_name = "DIR", env = "CONSIGN_STATE", default_value = "/var/lib/consign")]
    pub state: PathBuf,

    /// Where agents and operators connect
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7443")]
    pub listen: SocketAddr,

    /// Where tokens are redeemed
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7444")]
    pub enrolment_listen: SocketAddr,

    /// The name or address by which others reach this machine, without a port; it goes into tokens
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,

    /// What `consign init` wrote for this machine; needed once
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,

    /// Where root installed the programs that say how a wave is (health.command of an environment)
    #[arg(long, value_name = "DIR", default_value = "/etc/consign/health.d")]
    pub health_programs: PathBuf,

    /// Who is told of rollouts, holds and gates that wait: a file of [[webhook]] tables
    #[arg(long, value_name = "FILE")]
    pub webhooks: Option<PathBuf>,
}

/// `<state>/addresses.json`: where a running coordinator really listens, whatever ports it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub listen: SocketAddr,
    pub enrolment_listen: SocketAddr,
    pub socket: PathBuf,
    /// `host:port`, as tokens say them.
    pub address: String,
    pub enrolment_address: String,
}

impl Addresses {
    pub(super) fn new(
        listen: SocketAddr,
        enrolment_listen: SocketAddr,
        socket: PathBuf,
        advertise: Option<&str>,
    ) -> Self {
        let at = |address: SocketAddr| {
            let host = match advertise {
                Some(host) => host.to_owned(),
                None if address.ip().is_unspecified() => {
                    rustix::system::uname().nodename().to_string_lossy().into_owned()
                }
                None => address.ip().to_string(),
            };
            match host.parse::<IpAddr>() {
                Ok(ip) => SocketAddr::new(ip, address.port()).to_string(),
                Err(_) => format!("{host}:{}", address.port()),
            }
        };
        let (address, enrolment_address) = (at(listen), at(enrolment_listen));
        Self { listen, enrolment_listen, socket, address, enrolment_address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(listen: &str, advertise: Option<&str>) -> String {
        let listen = listen.parse().unwrap();
        Addresses::new(listen, listen, "s".into(), advertise).address
    }

    #[test]
    fn others_are_told_an_address_that_they_can_reach() {
        assert_eq!(address("127.0.0.1:1", None), "127.0.0.1:1");
        assert_eq!(address("0.0.0.0:7443", Some("deploy.example")), "deploy.example:7443");
        assert_eq!(address("[::1]:7443", None), "[::1]:7443");
        assert_eq!(address("0.0.0.0:7443", Some("2001:db8::1")), "[2001:db8::1]:7443");
        assert!(!address("0.0.0.0:7443", None).starts_with("0.0.0.0"));
    }
}
