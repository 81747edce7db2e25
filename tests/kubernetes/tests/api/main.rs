//! api: what an API server alone decides: our kinds, the chart's objects, the controller, the webhooks.
//!
//! `cargo test -p kubernetes --test api WORD` runs the cases with this word in their name. All share one
//! control plane without nodes; whose pods answer, they are the lab's. The controller has the rights that
//! the chart grants it and no others.

mod controller;
mod corpus;
mod crds;
mod identity;
mod inject;
mod install;
mod source;
mod start;
mod status;
mod webhook;
mod world;

use std::process::ExitCode;

use kubernetes::case;
use kubernetes::cases::{Case, run};

use world::World;

/// In this order: a cluster that has none of our kinds is there only once, and the API server's end comes
/// last.
const CASES: &[Case<World>] = &[
    case!(world::an_object_that_is_wrong_is_refused_in_the_servers_words),
    case!(source::objects_reach_proxies_and_so_do_those_of_the_gateway_api_installed_later),
    case!(install::api_server_takes_all_that_the_chart_can_render),
    case!(install::helm_installs_upgrades_and_leaves_no_trace),
    case!(install::tidegate_installs_and_leaves_no_trace),
    case!(crds::definitions_are_taken_and_are_structural),
    case!(crds::reader_and_api_server_agree_on_every_spec_of_the_corpus),
    case!(crds::every_sample_is_taken),
    case!(crds::what_has_one_default_shows_it),
    case!(crds::what_is_not_known_is_refused_and_pruned_where_nobody_is_strict),
    case!(crds::a_status_is_taken_as_it_is_made_waited_for_and_shown_in_columns),
    case!(crds::kubectl_explains_and_finds_our_kinds),
    case!(crds::an_object_of_another_version_is_told_apart),
    case!(inject::every_kind_injected_is_taken_and_unchanged_by_a_second_time),
    case!(inject::of_an_injected_pod_only_the_writing_of_the_rules_is_more_than_restricted),
    case!(webhook::a_pod_gets_its_sidecar_and_a_policy_its_review_when_the_api_server_asks),
    case!(webhook::the_webhooks_certificate_is_made_and_its_bundle_told_and_healed),
    case!(identity::two_controllers_that_start_at_once_agree_on_one_issuer_and_each_certifies),
    case!(identity::a_token_of_another_audience_another_account_or_nobody_is_refused_with_the_reason),
    case!(identity::an_issuer_of_cert_managers_shape_signs_with_its_chain_and_another_one_follows_live),
    case!(identity::anchors_follow_mesh_trust_come_back_when_deleted_and_go_with_the_label),
    case!(status::every_kind_is_told_and_programmed_once_a_proxy_has_acknowledged_it),
    case!(status::proxies_of_every_replica_count_before_a_policy_is_programmed),
    case!(start::what_keeps_a_controller_from_starting_is_told_with_its_object_and_remedy),
    case!(start::a_controller_told_to_stop_hands_the_lease_to_another_at_once),
    case!(source::while_the_api_server_is_away_and_a_permission_is_taken_what_was_good_stays_in_force),
];

fn main() -> ExitCode {
    run(CASES)
}
