// The verbs of `jail`, one file each. Each function declares its verb on the app.
#pragma once

#include "jailer/cli/cli.h"

namespace jail::cli {

using AddVerb = void (*)(CLI::App&, Context&);

void add_build(CLI::App& app, Context& context);
void add_deps(CLI::App& app, Context& context);
void add_diff(CLI::App& app, Context& context);
void add_doctor(CLI::App& app, Context& context);
void add_export(CLI::App& app, Context& context);
void add_files(CLI::App& app, Context& context);
void add_gc(CLI::App& app, Context& context);
void add_graph(CLI::App& app, Context& context);
void add_history(CLI::App& app, Context& context);
void add_exec(CLI::App& app, Context& context);
void add_init(CLI::App& app, Context& context);
void add_lint(CLI::App& app, Context& context);
void add_list(CLI::App& app, Context& context);
void add_lock(CLI::App& app, Context& context);
void add_logs(CLI::App& app, Context& context);
void add_plan(CLI::App& app, Context& context);
void add_remove(CLI::App& app, Context& context);
void add_rollback(CLI::App& app, Context& context);
void add_sbom(CLI::App& app, Context& context);
void add_show(CLI::App& app, Context& context);
void add_stale(CLI::App& app, Context& context);
void add_start_stop(CLI::App& app, Context& context);  // start stop restart reload enable disable
void add_status(CLI::App& app, Context& context);
void add_why(CLI::App& app, Context& context);
void add_verify(CLI::App& app, Context& context);

}  // namespace jail::cli
