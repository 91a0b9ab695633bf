//! Services of the user's, and an image that is not known.

use matriarch_plan::report::Block;
use matriarch_plan::spec::{ImageProblem, ServiceUpdate, ServiceWish};
use matriarch_plan::world::ServicePart;
use matriarch_plan::{Action, Plan, Seen};

use super::{actions, checked, healthy, name, settle};

fn wish(read_write: bool, update: ServiceUpdate) -> ServiceWish {
    ServiceWish { read_write, update }
}

/// What a plan does about Services of the user's.
fn about_services(planned: &Plan) -> Vec<String> {
    let about = |action: &&Action| {
        matches!(action, Action::ApplyService { .. } | Action::RemoveService { .. })
    };
    planned.stages.iter().flatten().filter(about).map(ToString::to_string).collect()
}

#[test]
fn services_of_the_user_s_are_made_changed_and_removed() {
    let mut model = healthy(3);
    let primary = wish(true, ServiceUpdate::Patch);
    let readers = wish(false, ServiceUpdate::Replace);
    model.spec().services = [("lb".to_owned(), primary), ("readers".to_owned(), readers)].into();
    let planned = checked(&model.world);
    let made = ["apply Service lb", "apply Endpoints lb", "apply Service readers"];
    assert_eq!(about_services(&planned), made);
    model.execute(&planned, usize::MAX);
    assert_eq!(about_services(&settle(&mut model)), Vec::<String>::new());

    for name in ["lb", "readers"] {
        if let Seen::Known(facts) = model.service(name, ServicePart::Service) {
            facts.conforms = false;
        }
    }
    let planned = checked(&model.world);
    assert_eq!(about_services(&planned), ["apply Service lb", "remove Service readers"]);
    model.execute(&planned, usize::MAX);
    let planned = checked(&model.world);
    assert_eq!(about_services(&planned), ["apply Service readers"]);
    model.execute(&planned, usize::MAX);

    model.spec().services = [("lb".to_owned(), readers)].into();
    let planned = checked(&model.world);
    assert_eq!(about_services(&planned), ["remove Endpoints lb", "remove Service readers"]);
    model.execute(&planned, usize::MAX);
    model.spec().services.clear();
    settle(&mut model);
    assert!(model.world.services.is_empty(), "{:?}", model.world.services);
}

#[test]
fn a_service_that_is_not_ours_is_left_alone_and_said_so() {
    let mut model = healthy(1);
    model.spec().services = [("lb".to_owned(), wish(true, ServiceUpdate::Replace))].into();
    *model.service("lb", ServicePart::Service) = Seen::Unknown { why: "foreign".to_owned() };
    let planned = checked(&model.world);
    assert_eq!(about_services(&planned), ["apply Endpoints lb"]);
    let blocked = planned.report.steps.iter().flat_map(|step| &step.blocked);
    let said = blocked.filter(|block| matches!(block, Block::Service { name, .. } if name == "lb"));
    assert_eq!(said.count(), 1);
}

#[test]
fn an_image_that_is_not_known_stops_nothing_and_is_said() {
    let mut model = healthy(3);
    model.spec().image_problem =
        Some(ImageProblem { object: "ImageCatalog/i".to_owned(), message: "gone".to_owned() });
    model.lose_pod(&name(2));
    let planned = checked(&model.world);
    let makes = |action: &&Action| matches!(action, Action::CreatePod { .. });
    assert_eq!(actions(&planned).iter().copied().filter(makes).count(), 1);
    let blocked = planned.report.steps.iter().flat_map(|step| &step.blocked);
    assert_eq!(blocked.filter(|block| matches!(block, Block::Image(_))).count(), 1);
}
