//! `consign webhook`: who is told of rollouts, and how that goes.

use clap::{Args, Subcommand};
use consign_common::time::{Clock as _, SystemClock, UnixMs};
use consign_proto::v1;

use super::{
    client::{Client, unary},
    failure::Result,
    output::Webhook,
    print::Printer,
    text::{ago, precise, table},
};

#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// List those of the coordinator's file, and what waits for them
    List,
    /// Send a message that tells of nothing, behind those that wait
    #[command(after_help = "Example:
  consign webhook test chat")]
    Test(NameArgs),
    /// Try now what waits, and once more what was given up
    Retry(NameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The webhook's name in the file
    name: String,
}

pub(super) async fn run(command: WebhookCommand, client: &Client, printer: &Printer) -> Result<()> {
    let mut operators = client.operators();
    let answer = match command {
        WebhookCommand::List => {
            let request = unary(v1::ListWebhooksRequest {});
            operators.list_webhooks(request).await.map(|answer| answer.into_inner().webhooks)
        }
        WebhookCommand::Test(NameArgs { name }) => {
            let request = unary(v1::WebhookRequest { name });
            operators.test_webhook(request).await.map(|answer| vec![answer.into_inner()])
        }
        WebhookCommand::Retry(NameArgs { name }) => {
            let request = unary(v1::WebhookRequest { name });
            operators.retry_webhook(request).await.map(|answer| vec![answer.into_inner()])
        }
    };
    let webhooks: Vec<Webhook> =
        answer.map_err(|status| client.failure(status))?.into_iter().map(Into::into).collect();
    printer.show(&webhooks, |webhooks| text(webhooks, SystemClock.now()))
}

fn text(webhooks: &[Webhook], now: UnixMs) -> String {
    if webhooks.is_empty() {
        return "None: `consign serve --webhooks FILE` names them.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = webhooks
        .iter()
        .map(|webhook| {
            let events = if webhook.events.is_empty() { "all".to_owned() } else { webhook.events.join(", ") };
            let trouble = match webhook.error.as_str() {
                "" => String::new(),
                error => format!("{error}; again at {}", precise(UnixMs(webhook.next_ms))),
            };
            vec![
                webhook.name.clone(),
                webhook.host.clone(),
                events,
                webhook.waiting.to_string(),
                ago(webhook.delivered_ms, now),
                webhook.given_up.to_string(),
                trouble,
            ]
        })
        .collect();
    table(&["WEBHOOK", "HOST", "EVENTS", "WAITING", "DELIVERED", "GIVEN UP", "TROUBLE"], &rows)
}
