//! `consign rollout logs`: what steps printed, from the beginning or from an offset, and on as it comes.

use std::{collections::BTreeSet, time::Duration};

use consign_common::{
    terminal::escape_line,
    time::{Clock, SystemClock},
};
use consign_proto::v1;

use super::{commands::LogsArgs, resolve::resolve};
use crate::cli::{
    client::{Client, is_transient, unary},
    failure::{Exit, Failure, Result},
    follow::{Output, Outputs, Part, json_of_record, line_of_output},
    print::{Format, Printer},
    server::names,
};

const RETRY: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(200);

pub(super) async fn run(args: LogsArgs, client: &Client, printer: &Printer) -> Result<Exit> {
    if args.since > 0 && (args.server.is_none() || args.step.is_none()) {
        return Err(Failure::usage("--since is an offset in one step's log")
            .next("say which: --server NAME --step NAME"));
    }
    let rollout = resolve(client, &args.rollout).await?;
    known(&rollout, &args, client).await?;
    let request = v1::ReadLogsRequest {
        rollout,
        server: args.server.map(String::from).unwrap_or_default(),
        step: args.step.map(String::from).unwrap_or_default(),
        since: args.since,
        follow: args.follow,
    };
    let mut reader = Reader { outputs: Outputs::since(args.since), printer, wrote: Wrote::Nothing };
    tokio::select! {
        read = reader.until_end(client, &request) => read?,
        signal = tokio::signal::ctrl_c() => {
            signal.map_err(|error| Failure::new(format!("failed to wait for signals: {error}")))?;
            reader.finish()?;
            return Ok(Exit::Interrupted);
        }
    }
    reader.finish()?;
    if reader.wrote == Wrote::Nothing && printer.format() == Format::Text {
        printer.note("nothing was written")?;
    }
    Ok(Exit::Done)
}

/// A name that is not in the rollout would be followed in silence.
async fn known(rollout: &str, args: &LogsArgs, client: &Client) -> Result<()> {
    if args.server.is_none() && args.step.is_none() {
        return Ok(());
    }
    let request = unary(v1::ShowRolloutRequest { rollout: rollout.to_owned() });
    let answer = client.operators().show_rollout(request).await.map_err(|status| client.failure(status))?;
    let deployments = answer.into_inner().deployments;
    let servers: BTreeSet<&str> = deployments.iter().map(|deployment| deployment.server.as_str()).collect();
    if let Some(server) = args.server.as_ref().filter(|server| !servers.contains(server.as_str())) {
        return Err(Failure::new(format!("{server} is not in this rollout"))
            .next(format!("its servers: {}", escape_line(&names(servers.iter())))));
    }
    // Before a server has accepted its order nobody knows the steps.
    let steps: BTreeSet<&str> =
        deployments.iter().flat_map(|deployment| &deployment.steps).map(|step| step.name.as_str()).collect();
    match args.step.as_ref().filter(|step| !steps.is_empty() && !steps.contains(step.as_str())) {
        Some(step) => Err(Failure::new(format!("no step of this rollout is called {step}"))
            .next(format!("its steps: {}", escape_line(&names(steps.iter()))))),
        None => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrote {
    Nothing,
    Something,
}

struct Reader<'a> {
    outputs: Outputs,
    printer: &'a Printer,
    wrote: Wrote,
}

impl Reader<'_> {
    /// A broken stream is asked for again from where it began; what was seen is not shown twice.
    async fn until_end(&mut self, client: &Client, request: &v1::ReadLogsRequest) -> Result<()> {
        let mut connected = false;
        loop {
            let Some(status) = self.read_stream(client, request, &mut connected).await? else {
                return Ok(());
            };
            if !connected || !is_transient(&status) {
                return Err(client.failure(status));
            }
            self.printer.note("lost the coordinator, trying to connect again")?;
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn read_stream(
        &mut self,
        client: &Client,
        request: &v1::ReadLogsRequest,
        connected: &mut bool,
    ) -> Result<Option<tonic::Status>> {
        let mut stream = match client.operators().read_logs(request.clone()).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(Some(status)),
        };
        *connected = true;
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(part)) => self.take(&part.into())?,
                    Ok(None) => return Ok(None),
                    Err(status) => return Ok(Some(status)),
                },
                _ = tick.tick() => {
                    let mut lines = Vec::new();
                    self.outputs.flush_idle(SystemClock.now(), |output| lines.push(output));
                    self.print(&lines)?;
                }
            }
        }
    }

    fn take(&mut self, part: &Part) -> Result<()> {
        self.wrote = Wrote::Something;
        let (mut records, mut lines) = (Vec::new(), Vec::new());
        let record = |part: &Part, offset, record: &_| records.push(json_of_record(part, offset, record));
        self.outputs.push(part, record, |output| lines.push(output));
        match self.printer.format() {
            Format::Json => records.iter().try_for_each(|record| self.printer.json_line(record)),
            Format::Text => self.print(&lines),
        }
    }

    fn print(&self, lines: &[Output]) -> Result<()> {
        match self.printer.format() {
            Format::Json => Ok(()),
            Format::Text => lines.iter().try_for_each(|output| self.printer.line(&line_of_output(output))),
        }
    }

    fn finish(&mut self) -> Result<()> {
        let mut lines = Vec::new();
        self.outputs.finish(|output| lines.push(output));
        self.print(&lines)
    }
}
