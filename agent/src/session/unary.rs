//! The two calls that are one question and one answer. Errors are the coordinator's own words, safe to print.

use std::time::Duration;

use consign_common::limits::MESSAGE_BYTES;
use consign_proto::v1::{
    EnrollRequest, EnrollResponse, RenewRequest, agents_client::AgentsClient,
    enrolment_client::EnrolmentClient,
};
use tokio::time::timeout;
use tonic::{Response, Status, transport::Channel};

use super::stream::describe;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub async fn enroll(channel: Channel, request: EnrollRequest) -> Result<EnrollResponse, String> {
    let mut client = EnrolmentClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    within(client.enroll(request)).await
}

/// The new certificate, DER.
pub async fn renew(channel: Channel, csr: Vec<u8>) -> Result<Vec<u8>, String> {
    let mut client = AgentsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    within(client.renew(RenewRequest { csr: csr.into() })).await.map(|response| response.certificate.to_vec())
}

async fn within<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, String> {
    match timeout(ANSWER_WITHIN, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(describe(&status)),
        Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
    }
}
