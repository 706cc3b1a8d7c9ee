//! Keeps a connection to one replica, and reads what it reports.

use std::sync::Arc;
use std::time::Duration;

use sleuth_client::{Client, ClientError, Loads};
use tokio::time::{sleep, timeout};

use crate::fleet::Fleet;
use crate::replica::Replica;

/// Pauses between attempts to reach a replica.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Never ends; to be aborted when the replica leaves.
pub(crate) async fn follow(fleet: Fleet, replica: Arc<Replica>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let reached = {
            let _turn = fleet.turn().await;
            reach(&fleet, &replica).await
        };
        match reached {
            Ok((client, loads)) => {
                pause = FIRST_PAUSE;
                let why = read(&fleet, &replica, &client, loads).await;
                if replica.is_unreached(&why) {
                    tracing::warn!(replica = %replica.id, why, "replica lost");
                }
                replica.disconnected();
                fleet.lost(&replica);
            }
            Err(why) => {
                if replica.is_unreached(&why) {
                    tracing::warn!(replica = %replica.id, why, "replica not reached");
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A connection that works: the replica has said what it is, and will tell its load.
async fn reach(fleet: &Fleet, replica: &Replica) -> Result<(Client, Loads), String> {
    let settings = fleet.settings();
    let work = async {
        let client = fleet.dial().dial(&replica.url).await?;
        let card = Arc::new(client.model().await?);
        let most = settings.silence / 3;
        let least = settings.report_interval.min(most);
        let loads = client.watch_load(least, most).await?;
        Ok::<_, ClientError>((client, card, loads))
    };
    let reached = timeout(settings.silence, work).await;
    let (client, card, loads) =
        reached.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    replica.connected(client.clone(), Arc::clone(&card));
    fleet.reached(replica, &card);
    Ok((client, loads))
}

/// Reads reports until they end, or stay away too long; says why.
async fn read(fleet: &Fleet, replica: &Replica, client: &Client, mut loads: Loads) -> String {
    let silence = fleet.settings().silence;
    let mut is_first = true;
    loop {
        let report = match timeout(silence, loads.next()).await {
            Ok(Ok(Some(report))) => report,
            Ok(Ok(None)) => return "it ended its reports".to_owned(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it reported nothing".to_owned(),
        };
        replica.is_reached();
        let changed = replica.reported(report.load.clone());
        fleet.reported(replica, report, is_first);
        if changed && !is_first {
            // Another version answers by default: what it is called and takes may differ.
            match timeout(silence, client.model()).await {
                Ok(Ok(card)) => {
                    let card = Arc::new(card);
                    replica.describes(Arc::clone(&card));
                    fleet.reached(replica, &card);
                }
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "it does not tell its model".to_owned(),
            }
        }
        is_first = false;
    }
}
