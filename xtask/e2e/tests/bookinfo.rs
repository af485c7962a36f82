//! Bookinfo through the mesh: what the page shows, what the wire shows, who is served, what is refused.
//!
//! Never here: faults; the suite `resilience` makes them. Run by `cargo xtask test`.

mod bookinfo_cases;

use std::process::ExitCode;

use bookinfo_cases::{forged, input, policies, samples, traffic, wire};
use e2e::{
    bookinfo::Bookinfo,
    suite::{self, Test},
};

fn main() -> ExitCode {
    let tests = vec![
        Test::new("sixty_loads_show_all_versions_of_reviews", traffic::all_versions),
        Test::new("rules_move_traffic", traffic::rules_move_traffic),
        Test::maybe("openssl_sees_the_spiffe_identity", wire::openssl_sees_the_identity),
        Test::new(
            "a_pod_without_sidecar_is_refused_under_strict_and_served_under_permissive",
            wire::strict_and_permissive,
        ),
        Test::maybe("a_marker_is_read_on_the_wire_without_sidecars_and_not_with_them", wire::marker),
        Test::maybe("a_sidecar_refuses_certificates_of_elsewhere", forged::certificates),
        Test::new("citadel_signs_nothing_but_the_callers_own_name", forged::requests),
        Test::new("a_token_for_another_audience_is_refused", forged::tokens),
        Test::new("policies_say_who_may_call_and_what", policies::decide),
        Test::new("samples_get_ready_under_both_kinds_of_injection", samples::samples_get_ready),
        Test::maybe("every_public_sample_applies_but_the_listed", samples::every_public_sample_applies),
        Test::new("bad_input_is_refused_by_object_and_path", input::bad_input),
        Test::new("an_object_of_ten_megabytes_is_refused", input::too_large),
        Test::new("proxies_are_listed_and_in_sync", traffic::proxies_in_sync),
    ];
    suite::run("bookinfo", tests, || Bookinfo::start("bookinfo"))
}
