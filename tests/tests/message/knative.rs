//! knative: what github.com/knative/serving/issues/4522 asks of asynchronous requests, line by line.

use serde_json::json;

use crate::mesh::{OUTBOUND, host};
use crate::receiver::Act;
use crate::resources::with_replica;
use crate::shop::{PREFER, Setup, id_of, json_of, send};

/// "Same endpoint should allow for both blocking and non-blocking async requests."
#[tokio::test]
async fn one_endpoint_takes_blocking_and_non_blocking_requests() {
    let shop = Setup::of(json!({})).script(|_| Act::after(100)).start().await;
    let blocking = shop.post("/job", &[], "").await;
    assert_eq!((blocking.status, blocking.text().as_str()), (200, "said"));
    let id = id_of(&shop.post("/job", &[PREFER], "").await);
    shop.reaches(&id, "Succeeded").await;
    assert_eq!(shop.orders().paths(), ["/job", "/job"]);
}

/// "The incoming async requests trigger the running of the async job", and "An async request does not
/// block. Instead, it returns immediately."
#[tokio::test]
async fn an_asynchronous_request_starts_the_job_and_does_not_wait_for_it() {
    let spec = json!({"delivery": {"timeout": "PT60S"}});
    let shop = Setup::of(spec).script(|_| Act::held()).start().await;
    // The job does not end before the test lets it: this answer is not the job's.
    let id = id_of(&shop.post("/job", &[PREFER], "work").await);
    let seen = shop.orders().has(1).await;
    assert_eq!((seen[0].id(), seen[0].body.as_ref()), (Some(id.as_str()), b"work".as_slice()));
    assert_eq!(shop.status(&id).await["state"], "Delivering", "and the job still runs");
    shop.orders().let_go();
}

/// "The response will have an identifier that can be used to track progress", and "A follow-up request
/// to track progress will need to supply the identifier": in progress while it runs, afterwards the
/// job's own body and status.
#[tokio::test]
async fn an_identifier_tracks_progress_to_the_jobs_own_response() {
    let shop = Setup::of(json!({}))
        .script(|_| Act::Held(Box::new(Act::Answer(203, vec![], "the job's result"))))
        .start()
        .await;
    let accepted = shop.post("/job", &[PREFER], "").await;
    let id = json_of(&accepted)["id"].as_str().expect("an identifier").to_owned();
    assert_eq!(id, id_of(&accepted), "in the body and in Location");
    shop.orders().has(1).await;
    assert_eq!(shop.result(&id).await.status, 202, "in progress");
    shop.orders().let_go();
    shop.reaches(&id, "Succeeded").await;
    let result = shop.result(&id).await;
    assert_eq!((result.status, result.text().as_str()), (203, "the job's result"));
}

/// "Any instance of the running Knative app should be able to accept / respond to an async query."
#[tokio::test]
async fn any_instance_accepts_and_responds() {
    let shop = with_replica(Setup::of(json!({}))).await;
    let replica = shop.mesh.at("web2", OUTBOUND);
    let id = shop.enqueue("/job", &[]).await;
    shop.reaches(&id, "Succeeded").await;
    let line = format!("GET /.tidegate/requests/{id}/result");
    let result = send(replica, &line, &host("orders"), &[], "").await;
    assert_eq!((result.status, result.text().as_str()), (200, "said"), "{result:?}");
}

/// "A failed async job will return a HTTP 5xx code."
#[tokio::test]
async fn a_failed_job_returns_its_5xx() {
    let shop = Setup::of(json!({"delivery": {"retry": 1}}))
        .script(|_| Act::Answer(500, vec![], "it failed"))
        .start()
        .await;
    let id = shop.enqueue("/job", &[]).await;
    shop.reaches(&id, "DeadLettered").await;
    let result = shop.result(&id).await;
    assert_eq!((result.status, result.text().as_str()), (500, "it failed"), "{result:?}");
}
