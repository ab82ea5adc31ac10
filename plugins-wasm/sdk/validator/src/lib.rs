//! Generated bindings of the world `validator`, and how the SDK's traits meet them. Use it through `flux-policy-sdk`.

wit_bindgen::generate!({
    world: "validator",
    path: "../../../wit/flux-policy-0.1",
    pub_export_macro: true,
    export_macro_name: "export_world",
    default_bindings_module: "flux_policy_sdk::bindings::validator",
});

flux_policy_sdk_core::implement_host!();
flux_policy_sdk_core::implement_job!();
