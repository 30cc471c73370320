//! A connection to a port on 127.0.0.1 in the container's network namespace. Nothing is sent, nothing read.

use super::TIMEOUT;
use lazaret_kernel::netns::{NetnsError, NetworkNamespace};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// Connects once. False: the port takes no connection. Blocks for [`TIMEOUT`] at most.
///
/// # Errors
/// When the namespace cannot be entered.
pub(super) fn ask(namespace: &NetworkNamespace, port: u16) -> Result<bool, NetnsError> {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    namespace.run(|| TcpStream::connect_timeout(&server, TIMEOUT).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_that_takes_connections_is_ready_and_one_that_is_closed_is_not() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: not root, cannot enter a network namespace");
            return;
        }
        let own = NetworkNamespace::of(std::process::id()).expect("own namespace");
        let server = TcpListener::bind("127.0.0.1:0").expect("port");
        let port = server.local_addr().expect("address").port();
        assert!(ask(&own, port).expect("entered"));
        drop(server);
        assert!(!ask(&own, port).expect("entered"));
    }
}
