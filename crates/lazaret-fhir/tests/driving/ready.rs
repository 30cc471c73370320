//! The wait for a server.

use super::fake::{Fake, Scenario};
use super::{AMPLE, SOON};
use lazaret_fhir::ready;
use std::time::Duration;

const OFTEN: Duration = Duration::from_millis(1);

#[test]
fn a_server_is_waited_for() {
    let fake = Fake::start(Scenario::StartsAfter(5));
    let url = format!("{}/metadata?_summary=true", fake.base());
    ready::wait(&url, 503, AMPLE, OFTEN, &|| true).expect("the first answer");
    ready::wait(&url, 200, AMPLE, OFTEN, &|| true).expect("the sixth answer");
    assert_eq!(fake.log().len(), 6);
}

#[test]
fn a_server_that_ends_or_never_comes_is_told() {
    let fake = Fake::start(Scenario::StartsAfter(usize::MAX));
    let url = format!("{}/metadata", fake.base());
    let alive = || fake.log().len() < 3;
    let error = ready::wait(&url, 200, AMPLE, OFTEN, &alive)
        .expect_err("it died")
        .to_string();
    assert!(
        error.starts_with("the server ended after ")
            && error.ends_with("the last attempt: status 503"),
        "{error}"
    );
    let error = ready::wait(&url, 200, SOON, OFTEN, &|| true)
        .expect_err("too late")
        .to_string();
    assert_eq!(
        error,
        format!("{url} did not answer 200 within 300ms; the last attempt: status 503")
    );
    let hanging = Fake::start(Scenario::Hangs);
    let error = ready::wait(&hanging.base(), 200, SOON, OFTEN, &|| true).expect_err("too late");
    assert!(
        matches!(error, ready::ReadyError::TimedOut { .. }),
        "{error}"
    );
    assert!(matches!(
        ready::wait("https://x/", 200, SOON, OFTEN, &|| true),
        Err(ready::ReadyError::Url(_))
    ));
}
