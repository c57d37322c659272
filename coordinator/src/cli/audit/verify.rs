//! `consign audit verify`: the whole chain made again, against all that is remembered of it elsewhere.

use std::collections::BTreeSet;

use consign_common::{
    audit::{Entry, Verifier},
    digest::Sha256,
};
use consign_proto::v1;

use super::{
    entries,
    receipts::{self, Checked},
    remember::Remembered,
};
use crate::cli::{
    client::Client,
    failure::{Failure, Result},
    output::AuditVerified,
    print::Printer,
    profile::Home,
};

pub(super) async fn run(home: &Home, client: &Client, printer: &Printer) -> Result<()> {
    let heads = entries::heads(client).await?;
    let mut own = Remembered::read(home)?;
    let mine = own.of(&heads.coordinator).iter().map(|head| (*head, "this home".to_owned()));
    let mut remembered: Vec<_> = mine.collect();
    remembered.extend(heads.seen);

    let mut verifier = Verifier::new(remembered);
    let mut named = BTreeSet::new();
    let mut all = entries::read(client, v1::ReadAuditRequest::default()).await?;
    while let Some(kept) = all.next().await? {
        if let Some(entry) = verifier.take(&kept.bytes, kept.hash) {
            named.extend(of_receipt(&entry));
        }
    }
    let (head, agreed) = verifier.end().map_err(|fault| {
        Failure::new(format!("the audit log is not what it was: {fault}")).next(
            "keep a copy (`consign audit export`) and the coordinator's database, and find out who had access to it; after a \
             restored backup, `consign audit accept --reason WHY`",
        )
    })?;
    let receipts = check_receipts(client, named).await?;
    if home.root().is_dir() && own.of(&heads.coordinator).last() != Some(&head) {
        own.add(&heads.coordinator, head);
        own.write(home)?;
    }
    let verified = AuditVerified { entries: head.sequence, hash: head.hash.to_string(), agreed, receipts };
    printer.show(&verified, text)
}

fn text(verified: &AuditVerified) -> String {
    let AuditVerified { entries, hash, agreed, receipts } = verified;
    format!(
        "{entries} entries, all as they were written (the last one is {hash})\n{agreed} remembered ends of the log agree: this \
         home's, and those of servers' agents\n{receipts} receipts are there and are their servers'\n"
    )
}

/// The digest of a receipt that the log names.
fn of_receipt(entry: &Entry) -> Option<Sha256> {
    if entry.what == "receipt" { entry.documents.first().copied() } else { None }
}

/// Every receipt is one that the log names, and all of those are there.
async fn check_receipts(client: &Client, mut named: BTreeSet<Sha256>) -> Result<usize> {
    let mut all = receipts::read(client, v1::ListReceiptsRequest::default()).await?;
    let mut count = 0;
    while let Some(stored) = all.next().await? {
        let fault =
            |why: &str| Failure::new(format!("a receipt of {} is not what it was: {why}", stored.server));
        if !named.remove(&Sha256::of(&stored.envelope)) {
            return Err(fault("no entry of the audit log names it; it was altered, or put in"));
        }
        match Checked::of(&stored) {
            Ok(_) => count += 1,
            Err(why) => return Err(fault(&why)),
        }
    }
    match named.len() {
        0 => Ok(count),
        missing => {
            Err(Failure::new(format!("{missing} receipts that the audit log names were removed or altered")))
        }
    }
}
