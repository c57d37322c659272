use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use consign_common::{
    deployment::{Failure, StepOutcome, log::Decoder},
    plan::Plan,
    time::SystemClock,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;

struct Case {
    dir: TempDir,
    step: Step,
}

impl Case {
    fn new(step: &str) -> Self {
        let text = format!(
            "app = \"shop\"\n[[step]]\nname = \"x\"\n{step}\n[[step]]\nname = \"a\"\nactivate = true\n"
        );
        let plan = Plan::parse(&text, "consign.toml").unwrap_or_else(|error| panic!("{error}"));
        Self { dir: tempfile::tempdir().unwrap(), step: plan.steps[0].clone() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("deploy-0-1.log")
    }

    async fn run(&self) -> StepOutcome {
        let (keep, cancelled) = oneshot::channel();
        let outcome = self.run_until(cancelled).await;
        drop(keep);
        outcome
    }

    async fn run_until(&self, cancelled: oneshot::Receiver<()>) -> StepOutcome {
        let log = AttemptLog::create(&self.path(), Arc::new(SystemClock)).unwrap();
        run(&self.step, log, cancelled, async { Ok(()) }).await
    }

    fn log(&self) -> String {
        let mut decoder = Decoder::at(0);
        decoder.push(&std::fs::read(self.path()).unwrap());
        let mut text = String::new();
        while let Some(record) = decoder.next_record().unwrap() {
            text.push_str(&String::from_utf8_lossy(&record.data));
        }
        text
    }
}

/// Answers each connection with the next of these, then closes it.
fn serve(answers: Vec<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            drop(stream.read(&mut request));
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    port
}

fn message(outcome: &StepOutcome) -> String {
    let StepOutcome::Failed { failure: Failure::Check { message } } = outcome else {
        panic!("not a failed check: {outcome:?}")
    };
    message.clone()
}

#[tokio::test]
async fn http_is_tried_again_until_it_is_as_it_should() {
    let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nwait";
    let port = serve(vec![busy, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]);
    let case = Case::new(&format!(
        "http = {{ url = \"http://127.0.0.1:{port}/healthz\", status = 200, contains = \"ok\", within = \"20s\" }}"
    ));
    assert_eq!(case.run().await, StepOutcome::Succeeded);
    assert!(case.log().contains("503, expected 200: wait"), "{}", case.log());
    assert!(case.log().ends_with("/healthz: 200\n"), "{}", case.log());
}

#[tokio::test]
async fn http_follows_no_redirect_and_tells_its_last_failure() {
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let port = serve(vec![moved; 20]);
    let case =
        Case::new(&format!("http = {{ url = \"http://127.0.0.1:{port}/\", status = 200, within = \"1s\" }}"));
    let message = message(&case.run().await);
    assert!(message.contains("302, expected 200"), "{message}");
}

#[tokio::test]
async fn tcp_comes_true_or_says_why_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let case = Case::new(&format!("tcp = {{ address = \"127.0.0.1:{port}\", within = \"1s\" }}"));
    assert_eq!(case.run().await, StepOutcome::Succeeded);
    drop(listener);
    let message = message(&case.run().await);
    assert!(message.contains("refused"), "{message}");
}

#[tokio::test]
async fn cancel_and_timeout_end_a_step() {
    let case = Case::new("sleep = \"10m\"");
    let (cancel, cancelled) = oneshot::channel();
    cancel.send(()).unwrap();
    assert_eq!(case.run_until(cancelled).await, StepOutcome::Cancelled);
    assert_eq!(case.log(), "cancelled\n");

    let mut case = Case::new("sleep = \"10m\"");
    case.step.timeout = Duration::from_millis(20);
    let failure = Failure::Timeout { after_ms: 20 };
    assert_eq!(case.run().await, StepOutcome::Failed { failure });
}
