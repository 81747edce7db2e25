//! mesh: Tidegate on two nodes, installed by its chart, one case after another.
//!
//! `cargo test -p kubernetes --test mesh WORD` runs the cases with this word in their name. All share one
//! cluster and one installation, and each leaves these as it found them.

mod access;
mod asked;
mod conformance;
mod gateway;
mod injection;
mod objects;
mod outage;
mod queue;
mod release;
mod rollout;
mod routes;
mod town;
mod trust;

use std::process::ExitCode;

use kubernetes::case;
use kubernetes::cases::{Case, run};

use town::Town;

/// In this order: what the later rest on comes first, and the end of the installation last.
const CASES: &[Case<Town>] = &[
    case!(injection::a_request_goes_through_both_sidecars_and_bears_the_clients_identity),
    case!(injection::pods_of_a_stateful_set_have_sidecars_and_are_reached_by_their_names),
    case!(injection::a_job_and_a_cron_job_have_the_network_and_end_with_their_sidecars),
    case!(injection::a_pod_on_its_nodes_network_is_refused_when_it_asks_and_runs_without_when_its_namespace_does),
    case!(injection::an_annotation_that_cannot_be_honoured_refuses_the_pod_and_names_itself),
    case!(injection::a_second_injection_changes_nothing),
    case!(injection::probes_reach_an_application_that_lets_nobody_in),
    case!(queue::requests_taken_in_while_the_receiver_is_away_arrive_when_it_is_back),
    case!(queue::a_sidecar_that_is_killed_with_messages_queued_loses_none),
    case!(queue::what_is_queued_when_a_pod_is_deleted_is_delivered_before_it_ends),
    case!(access::an_access_policy_lets_in_by_service_account_across_namespaces),
    case!(access::nothing_of_a_request_between_sidecars_is_readable_on_the_wire),
    case!(routes::a_canary_gets_its_share_and_the_route_says_what_became_of_it),
    case!(routes::routes_of_the_mesh_conformance_suite_do_what_its_cases_say),
    case!(conformance::mesh_ports_a_route_counts_for_the_port_it_names_or_for_all),
    case!(conformance::mesh_frontend_a_route_counts_for_its_service_and_not_for_a_pods_address),
    case!(conformance::mesh_traffic_split_paths_go_to_the_services_they_name),
    case!(conformance::mesh_grpc_route_weight_calls_go_to_the_backend_that_has_it),
    case!(routes::mesh_consumer_route_counts_in_its_own_namespace_alone),
    case!(rollout::no_request_fails_while_servers_and_clients_are_replaced_under_load),
    case!(trust::an_anchor_that_is_added_reaches_every_pod_and_no_request_fails),
    case!(outage::a_killed_sidecar_is_back_and_carries_traffic_again),
    case!(outage::another_replica_takes_over_when_the_one_that_writes_is_killed),
    case!(outage::traffic_goes_on_while_the_api_server_is_away_for_a_minute),
    case!(outage::traffic_goes_to_others_when_a_node_is_cut_off),
    case!(release::an_upgrade_by_helm_keeps_the_ca_bundle_and_every_pod),
    case!(release::the_end_of_the_installation_leaves_nothing),
];

fn main() -> ExitCode {
    run(CASES)
}
