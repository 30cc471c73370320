//! One HTTP connection pool to one base: bounded in time and in size, without proxy, redirect, cookies or retries.
//!
//! A retry would hide what a server under enforcement does wrong, and a redirect would leave the base.

use crate::base::Base;
use core::time::Duration;
use ureq::Agent;
use ureq::http::{Method, Request, Response, header};

/// Largest answer that is read, in bytes. HAPI's CapabilityStatement has 1.5 MB.
pub const BODY_LIMIT: u64 = 16 << 20;

/// FHIR's JSON.
pub(crate) const FHIR_JSON: &str = "application/fhir+json";

/// No usable answer came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The answer is larger than [`BODY_LIMIT`].
    #[error("the answer of {url} is larger than {BODY_LIMIT} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
    },
    /// The answer was not complete in time.
    #[error("{url} did not answer within {limit:?}")]
    TimedOut {
        /// What was asked.
        url: String,
        /// The time it was given.
        limit: Duration,
    },
    /// The connection could not be made, or broke.
    #[error("no answer from {url}")]
    Broken {
        /// What was asked.
        url: String,
        /// What happened.
        source: Box<ureq::Error>,
    },
    /// The request itself cannot be written down.
    #[error("no request can be made of {url}")]
    Unwritable {
        /// What was to be asked.
        url: String,
        /// Why.
        source: ureq::http::Error,
    },
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

impl Call {
    /// A request without a body that accepts FHIR JSON.
    pub(crate) fn new(method: Method, url: String) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            body: None,
        }
    }

    /// GET.
    pub(crate) fn get(url: String) -> Self {
        Self::new(Method::GET, url)
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Adds a body.
    pub(crate) fn body(mut self, content_type: &str, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self.header("Content-Type", content_type)
    }

    /// Adds a resource as body.
    pub(crate) fn json(self, resource: &serde_json::Value) -> Self {
        self.body(FHIR_JSON, resource.to_string().into_bytes())
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) location: Option<String>,
    pub(crate) content_location: Option<String>,
    pub(crate) etag: Option<String>,
    pub(crate) retry_after_s: Option<u64>,
    pub(crate) body: Vec<u8>,
}

/// Sends requests to one base.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: Base,
    timeout: Duration,
}

impl Client {
    /// A client with connections of its own. `timeout` holds for one request from the connect to the last byte of the answer.
    pub(crate) fn new(base: Base, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Not the environment's: a proxy would be another machine.
            .proxy(None)
            .user_agent(concat!("lazaret-fhir/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.new_agent(),
            base,
            timeout,
        }
    }

    /// The base.
    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    /// Sends a request and reads the answer to its end, whatever its status.
    pub(crate) fn send(&self, call: Call) -> Result<Answer, TransportError> {
        let Call {
            method,
            url,
            headers,
            body,
        } = call;
        let mut request = Request::builder().method(method).uri(&url);
        if !headers.iter().any(|(name, _)| *name == "Accept") {
            request = request.header(header::ACCEPT, FHIR_JSON);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let sent = match body {
            None => request.body(()).map(|request| self.agent.run(request)),
            Some(body) => request.body(body).map(|request| self.agent.run(request)),
        };
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(source)) => return Err(self.broken(url, source)),
            Err(source) => return Err(TransportError::Unwritable { url, source }),
        };
        self.read(url, response)
    }

    fn read(
        &self,
        url: String,
        mut response: Response<ureq::Body>,
    ) -> Result<Answer, TransportError> {
        let text = |name| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let (location, content_location) = (text("location"), text("content-location"));
        let (etag, content_type) = (text("etag"), text("content-type"));
        let retry_after_s = text("retry-after").and_then(|s| s.trim().parse().ok());
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(BODY_LIMIT);
        let body = body.read_to_vec().map_err(|e| self.broken(url, e))?;
        Ok(Answer {
            status,
            content_type: content_type.unwrap_or_default(),
            location,
            content_location,
            etag,
            retry_after_s,
            body,
        })
    }

    fn broken(&self, url: String, source: ureq::Error) -> TransportError {
        match source {
            ureq::Error::BodyExceedsLimit(_) => TransportError::TooLarge { url },
            ureq::Error::Timeout(_) => TransportError::TimedOut {
                url,
                limit: self.timeout,
            },
            source => TransportError::Broken {
                url,
                source: Box::new(source),
            },
        }
    }
}

/// A text made fit for the value of a query parameter: everything but RFC 3986's unreserved characters is escaped.
pub(crate) fn escape(text: &str) -> String {
    use core::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out
}

/// `name=value&…` with escaped values. Names may carry modifiers and chains (`subject:Patient.family`) and stay as they are.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(n, v)| format!("{n}={}", escape(v)))
        .collect();
    pairs.join("&")
}

/// The start of a body on one line, for messages.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let start = body.get(..200).unwrap_or(body);
    let text = String::from_utf8_lossy(start);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(
            query(&[("_tag", "http://a|b c"), ("x:Y.z", "é~")]),
            "_tag=http%3A%2F%2Fa%7Cb%20c&x:Y.z=%C3%A9~"
        );
    }
}
