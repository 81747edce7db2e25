//! review: whose a service account's token is, as the API server says.
//!
//! The token is a projected one with an audience of ours, so that a token meant for somebody else, the
//! API server first of all, is worth nothing here, and one meant for us is worth nothing there. The
//! API server checks signature, time, audience and that the pod it is bound to still lives
//! (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use policy::limits;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tonic::Status;

use super::Owner;
use super::counts::{Counts, Outcome};
use crate::asked::{Refusal, ask};

/// What names a service account among all users.
const ACCOUNT: &str = "system:serviceaccount:";
/// Where the API server says which pod a token is bound to.
const POD: &str = "authentication.kubernetes.io/pod-name";
/// Characters of the API server's reason that are passed on.
const REASON_MAX: usize = 300;

/// Asks the API server.
pub(crate) struct Reviews {
    api: Api<TokenReview>,
    audience: String,
    /// Places for those that are asked or wait.
    pub(super) places: Semaphore,
    in_flight: Semaphore,
    counts: Counts,
}

impl Reviews {
    /// Tokens must be of this audience.
    pub(crate) fn new(client: Client, audience: String, counts: Counts) -> Self {
        Self {
            api: Api::all(client),
            audience,
            places: Semaphore::new(limits::TOKEN_REVIEWS_WAITING_MAX),
            in_flight: Semaphore::new(limits::TOKEN_REVIEWS_IN_FLIGHT_MAX),
            counts,
        }
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// PERMISSION_DENIED with the reason, UNAVAILABLE where the API server cannot be asked,
    /// RESOURCE_EXHAUSTED where too many wait. No part of the token stands in it.
    pub(crate) async fn owner(&self, token: &str) -> Result<Owner, Status> {
        let (outcome, answer) = match self.ask(token).await {
            Ok(owner) => (Outcome::Accepted, Ok(owner)),
            Err((outcome, status)) => (outcome, Err(status)),
        };
        self.counts.reviewed(outcome);
        answer
    }

    async fn ask(&self, token: &str) -> Result<Owner, (Outcome, Status)> {
        let busy = |_| {
            let text =
                "as many certificate requests as this controller takes wait for their review: ask again";
            (Outcome::Busy, Status::resource_exhausted(text))
        };
        let _place = self.places.try_acquire().map_err(busy)?;
        let late = |_| {
            let text = "the API server did not review the token in time: ask again";
            (Outcome::Unavailable, Status::unavailable(text))
        };
        let review = tokio::time::timeout(limits::TOKEN_REVIEW_TIMEOUT, self.review(token));
        let status = review.await.map_err(late)?.map_err(|refusal| {
            (Outcome::Unavailable, Status::unavailable(format!("the token is not reviewed: {refusal}")))
        })?;
        self.judge(token, status)
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, Refusal> {
        // Never closed, so that there is always a turn.
        let _turn = self.in_flight.acquire().await;
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![self.audience.clone()]) };
        let question = TokenReview { spec, ..TokenReview::default() };
        let params = PostParams::default();
        let answer = ask("create a TokenReview", self.api.create(&params, &question)).await?;
        Ok(answer.status.unwrap_or_default())
    }

    fn judge(&self, token: &str, status: TokenReviewStatus) -> Result<Owner, (Outcome, Status)> {
        if !status.authenticated.unwrap_or_default() {
            return Err(self.refused(token, status.error.as_deref().unwrap_or_default()));
        }
        // A server that knows nothing of audiences answers without them, and has not checked any.
        if !status.audiences.is_some_and(|all| all.contains(&self.audience)) {
            return Err((
                Outcome::Audience,
                Status::permission_denied(self.wanted("the token is not for it")),
            ));
        }
        let user = status.user.unwrap_or_default();
        owner(&user).ok_or_else(|| {
            let text = "the token is not a service account's: mount the projected one of the pod";
            (Outcome::Account, Status::permission_denied(text))
        })
    }

    /// What a token says of itself is not proven; it only makes a refusal clearer.
    fn refused(&self, token: &str, reason: &str) -> (Outcome, Status) {
        let claims = Claims::of(token);
        let others = claims.audiences();
        if !others.is_empty() && !others.contains(&self.audience) {
            let found = others.join(", ");
            let found: String = found.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
            let text = self.wanted(&format!("the token is for {found:?}"));
            return (Outcome::Audience, Status::permission_denied(text));
        }
        if claims.has_ended(SystemTime::now()) {
            let text = "the token has run out: kubelet renews a projected one, so read its file again";
            return (Outcome::Refused, Status::permission_denied(text));
        }
        // The API server's reason, unless it should quote what it was shown.
        let quotes = token.split('.').any(|part| !part.is_empty() && reason.contains(part));
        let reason: String = if quotes { String::new() } else { reason.chars().take(REASON_MAX).collect() };
        let text = format!(
            "the API server does not take the token ({}): is it the projected one of a pod that runs in \
             this cluster?",
            if reason.is_empty() { "it gives no reason" } else { &reason }
        );
        (Outcome::Refused, Status::permission_denied(text))
    }

    fn wanted(&self, but: &str) -> String {
        let audience = &self.audience;
        format!(
            "the audience wanted is {audience:?}, {but}: project it into the pod with a volume of \
             `projected: {{sources: [{{serviceAccountToken: {{audience: {audience}}}}}]}}`"
        )
    }
}

fn owner(user: &UserInfo) -> Option<Owner> {
    let (namespace, account) = user.username.as_deref()?.strip_prefix(ACCOUNT)?.split_once(':')?;
    let pod = user.extra.as_ref().and_then(|extra| extra.get(POD)).and_then(|names| names.first());
    Some(Owner { account: (namespace.to_owned(), account.to_owned()), pod: pod.cloned() })
}

/// What a token says of itself (RFC 7519 §4.1).
#[derive(Default, Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audiences,
    exp: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Claims {
    fn of(token: &str) -> Self {
        let payload = token.split('.').nth(1).unwrap_or_default();
        let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
        serde_json::from_slice(&json).unwrap_or_default()
    }

    fn audiences(&self) -> Vec<String> {
        match &self.aud {
            Audiences::One(one) => vec![one.clone()],
            Audiences::Many(many) => many.clone(),
        }
    }

    fn has_ended(&self, now: SystemTime) -> bool {
        self.exp
            .is_some_and(|exp| UNIX_EPOCH.checked_add(Duration::from_secs(exp)).is_some_and(|end| end <= now))
    }
}
