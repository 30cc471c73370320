//! HTTP GET on 127.0.0.1 in the container's network namespace. Nothing of the answer but its status is read.

use super::TIMEOUT;
use lazaret_core::policy::Http;
use lazaret_kernel::netns::{NetnsError, NetworkNamespace};
use ureq::Agent;

/// Asks once. False: no answer, or another one. Blocks for [`TIMEOUT`] at most.
///
/// # Errors
/// When the namespace cannot be entered.
pub(super) fn ask(namespace: &NetworkNamespace, http: &Http) -> Result<bool, NetnsError> {
    namespace.run(|| {
        // No proxy from the daemon's environment, no redirect out of the container, no connection kept for later (it
        // would belong to this thread's namespace).
        let agent: Agent = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build()
            .into();
        let url = format!("http://127.0.0.1:{}{}", http.port, http.path);
        agent
            .get(&url)
            .call()
            .is_ok_and(|answer| answer.status().as_u16() == http.status)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    /// What one question brings from a server that gives `answer`, and the question's first line.
    fn outcome(answer: &'static str) -> (bool, String) {
        let server = TcpListener::bind("127.0.0.1:0").expect("port");
        let http = Http {
            port: server.local_addr().expect("address").port(),
            path: "/metadata?x=1".to_owned(),
            status: 200,
        };
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().expect("question");
            let mut line = String::new();
            let mut lines = BufReader::new(stream.try_clone().expect("clone"));
            lines.read_line(&mut line).expect("line");
            let mut rest = String::new();
            while lines.read_line(&mut rest).expect("line") > 2 {
                rest.clear();
            }
            stream.write_all(answer.as_bytes()).expect("answered");
            line
        });
        let own = NetworkNamespace::of(std::process::id()).expect("own namespace");
        let ready = ask(&own, &http);
        let asked = serving.join().expect("served");
        (ready.expect("entered"), asked.trim().to_owned())
    }

    #[test]
    fn only_the_status_named_is_ready() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: not root, cannot enter a network namespace");
            return;
        }
        let (ready, asked) = outcome("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            (ready, asked.as_str()),
            (true, "GET /metadata?x=1 HTTP/1.1")
        );
        for answer in [
            "HTTP/1.1 503 Not yet\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "nonsense\r\n\r\n",
            "",
        ] {
            assert!(!outcome(answer).0, "{answer}");
        }
    }
}
