#include "jailer/init/plan.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "jailer/init/certificate.h"
#include "jailer/init/place.h"
#include "jailer/init/units.h"
#include "jailer/manifest/codec.h"
#include "jailer/manifest/problems.h"
#include "jailer/manifest/toml_file.h"
#include "supervisor/base/quote.h"

namespace jail::init {
namespace {

constexpr const char* drop_in_name = "50-init.toml";

/// `text` as a TOML string of a drop-in; of an instance of a template, whose %i are replaced.
std::string toml_string(const std::string& text, bool of_template) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '%' && of_template) out += '%';
    out += c;
  }
  return out + '"';
}

/// Finds out, thing by thing, what there is and what is to be made.
class Planner {
 public:
  Planner(const Instance& instance, std::string words, const manifest::Manifest& manifest,
          const Example& example, const Options& options)
      : instance_(instance),
        words_(std::move(words)),
        manifest_(manifest),
        example_(example),
        options_(options),
        config_(instance.config(manifest.name)),
        drop_ins_(instance.own_manifests() + "/" + manifest.name + ".toml.d") {}

  Result<Plan> run(const Accounts& accounts) {
    plan_.name = manifest_.name;
    JAIL_CHECK(demand_names());
    plan_accounts(accounts);
    if (!example_.config.empty()) JAIL_CHECK(directory("directory", config_, 0755, "root"));
    for (const ExampleDirectory& each : example_.directories)
      JAIL_CHECK(directory("directory", config_ + "/" + each.path, each.mode, each.group));
    for (std::size_t i = 0; i < example_.files.size(); ++i) {
      const ExampleFile& each = example_.files[i];
      JAIL_CHECK(file("file", config_ + "/" + each.path, example_.contents[i], each.mode, each.group));
    }
    for (const ExampleCertificate& each : example_.certificates) JAIL_CHECK(certificate(each));
    JAIL_CHECK(directory("directory", drop_ins_, 0755, "root"));
    JAIL_CHECK(drop_in());
    for (const std::string& unit : example_.units) JAIL_CHECK(mask(unit));
    for (const manifest::Volume& volume : manifest_.volumes)
      plan_.others.push_back({"volume", volume.name, Outcome::left, "jail build makes it"});
    JAIL_CHECK(say_next());
    return std::move(plan_);
  }

 private:
  Result<void> demand_names() const {
    if (config_ == instance_.own_manifests())
      return fail(Exit::usage, "{}: this is where manifests are, so no jail's configuration can be there",
                  quote(config_));
    if (std::string wrong = manifest::path_problem(config_); !wrong.empty())
      return fail(Exit::usage, "{} {}: no manifest can name it", quote(config_), wrong);
    if (options_.test_certificate && example_.certificates.empty())
      return fail(Exit::usage, "{}: its example wants no certificate", manifest_.name);
    return {};
  }

  void plan_accounts(const Accounts& accounts) {
    for (const std::string& binary : manifest_.tree.binaries)
      if (plan_.missing_program.empty() && ::access(binary.c_str(), F_OK) != 0)
        plan_.missing_program = binary;
    const Names missing = missing_from(accounts, accounts_of(manifest_));
    std::string why;
    if (!plan_.missing_program.empty()) {
      why = fmt::format("missing; {} is not installed, and may bring it", packages());
    } else if (!instance_.home.empty()) {
      why = "missing; with --home nothing outside of it is touched: run: ";
    } else {
      plan_.accounts = missing;
      return;
    }
    const bool command = plan_.missing_program.empty();
    for (const std::string& name : missing.users)
      left("user", name,
           command ? fmt::format("{}useradd {}", why, fmt::join(useradd_words(accounts, name), " ")) : why);
    for (const std::string& name : missing.groups)
      left("group", name,
           command ? fmt::format("{}groupadd {}", why, fmt::join(groupadd_words(name), " ")) : why);
  }

  [[nodiscard]] std::string packages() const {
    return manifest_.packages.empty() ? plan_.missing_program
                                      : fmt::format("{}", fmt::join(manifest_.packages, " "));
  }

  void left(const std::string& kind, const std::string& what, const std::string& note) {
    plan_.others.push_back({kind, what, Outcome::left, note});
  }

  Result<void> directory(const std::string& kind, const std::string& path, unsigned mode,
                         const std::string& group) {
    JAIL_TRY(seen, look(path));
    JAIL_CHECK(demand_closed_directory(path, seen));
    Step step{kind, path, {}, mode, group, Outcome::made, {}};
    if (seen.there) settle(step, seen, true);
    plan_.steps.push_back(std::move(step));
    return {};
  }

  Result<void> file(const std::string& kind, const std::string& path, const std::string& bytes, unsigned mode,
                    const std::string& group) {
    JAIL_TRY(seen, look(path));
    Step step{kind, path, bytes, mode, group, Outcome::made, {}};
    if (seen.there) settle(step, seen, seen.is_file_with(bytes));
    plan_.steps.push_back(std::move(step));
    return {};
  }

  /// What is there stays. Its group is not compared: the name may not have a number yet.
  static void settle(Step& step, const Seen& seen, bool same) {
    const unsigned mode = seen.status.st_mode & 07777U;
    if (!same) {
      step.outcome = Outcome::kept;
      step.note =
          S_ISREG(seen.status.st_mode) ? "yours, differs from the example" : "yours, and no regular file";
    } else if (mode != step.mode) {
      step.outcome = Outcome::kept;
      step.note = fmt::format("yours, with the mode {:04o}; the example has {:04o}", mode, step.mode);
    } else {
      step.outcome = Outcome::there;
    }
  }

  /// A pair that is there is the admin's, whatever it is.
  Result<void> certificate(const ExampleCertificate& wanted) {
    const std::string cert = config_ + "/" + wanted.cert;
    const std::string key = config_ + "/" + wanted.key;
    JAIL_TRY(seen_cert, look(cert));
    JAIL_TRY(seen_key, look(key));
    const auto there = [&](const char* kind, const std::string& path, const Seen& seen) {
      if (seen.there) plan_.steps.push_back({kind, path, {}, 0, "root", Outcome::there, {}});
    };
    if (seen_cert.there && !seen_key.there) {
      plan_.steps.push_back({"certificate",
                             cert,
                             {},
                             0,
                             "root",
                             Outcome::kept,
                             fmt::format("yours; its key, {}, is missing", key)});
      return {};
    }
    if (seen_cert.there || !options_.test_certificate) {
      there("key", key, seen_key);
      there("certificate", cert, seen_cert);
      if (!seen_cert.there) wanted_certificates_.push_back({cert, key});
      return {};
    }
    const std::string host = options_.host.empty() ? wanted.host : options_.host;
    auto pair = make_test_certificate(host, seen_key.there ? seen_key.content : std::string());
    if (!pair && pair.error().exit == Exit::config)
      return with_hint(fail(Exit::config, "{}: {}", quote(key), pair.error().message), pair.error().hint);
    if (!pair) return tl::unexpected(std::move(pair).error());
    there("key", key, seen_key);
    if (!seen_key.there)
      plan_.steps.push_back(
          {"key", key, pair->key, wanted.mode, wanted.group, Outcome::made, "of the test certificate"});
    plan_.steps.push_back({"certificate", cert, pair->cert, 0644, "root", Outcome::made,
                           fmt::format("a TEST certificate for {}, for {} days", host, test_days)});
    return {};
  }

  [[nodiscard]] std::vector<Word> words(bool toml) const {
    const bool of_template = manifest_.name.find('@') != std::string::npos;
    const auto form = [&](const std::string& text) {
      if (!toml) return text;
      const std::string quoted = toml_string(text, of_template);
      return quoted.substr(1, quoted.size() - 2);
    };
    return {{"config", form(config_)},
            {"drop_in", form(drop_ins_ + "/" + drop_in_name)},
            {"name", form(manifest_.name)}};
  }

  Result<void> drop_in() {
    const bool of_template = manifest_.name.find('@') != std::string::npos;
    JAIL_TRY(more,
             fill_in(example_.drop_in_text, words(true), quote(example_.folder + "/" + example_.drop_in)));
    std::string text = fmt::format(
        "# Made by \"jail init {0}\". Yours to edit; \"jail init --undo {0}\" removes it if nobody has.\n",
        manifest_.name);
    if (!more.empty()) text += "\n" + more;
    if (!example_.config.empty())
      text += fmt::format(
          "\n# The configuration, in place of the distribution's own.\n[[config]]\nfrom = {}\nto   = {}\n",
          toml_string(config_, of_template), toml_string(example_.config, of_template));
    manifest::Problems problems;
    if (!manifest::parse_toml(text, example_.folder + "/" + example_.drop_in, problems) || !problems.empty())
      return tl::unexpected(problems.error("the drop-in that this would make is no TOML"));
    return file("drop-in", drop_ins_ + "/" + drop_in_name, text, 0644, "root");
  }

  Result<void> mask(const std::string& unit) {
    const std::string path = mask_path(unit);
    if (options_.keep_units || !instance_.home.empty()) {
      left("unit", unit,
           options_.keep_units ? "--keep-units" : "with --home nothing outside of it is touched");
      return {};
    }
    if (const std::string script = init_script(unit); !script.empty() && !runs_systemd()) {
      const std::string name = script.substr(script.rfind('/') + 1);
      left("script", script,
           fmt::format("without systemd it is yours to switch off: update-rc.d {0} disable; service {0} stop",
                       name));
    }
    if (!has_systemd()) return {};
    JAIL_TRY(seen, look(path));
    Step step{"unit", path, nowhere, 0, "root", Outcome::made, {}};
    if (seen.is_link_to(nowhere)) {
      step.outcome = Outcome::there;
    } else if (seen.there) {
      step.outcome = Outcome::kept;
      step.note = fmt::format("yours, so {0} is not masked; run: systemctl disable --now {0}", unit);
    }
    plan_.steps.push_back(std::move(step));
    return {};
  }

  Result<void> say_next() {
    if (!plan_.missing_program.empty()) {
      plan_.next.push_back(fmt::format("Install {}", packages()));
      plan_.next.push_back(command_line(instance_, "init " + words_));
    }
    for (const std::string& sentence : example_.next) {
      JAIL_TRY(text, fill_in(sentence, words(false), quote(example_.folder)));
      plan_.next.push_back(text);
    }
    for (const auto& [cert, key] : wanted_certificates_)
      plan_.next.push_back(
          fmt::format("Put your certificate, its chain in the same file, into {} and its key into {}; "
                      "or one for trying: {}",
                      cert, key, command_line(instance_, "init --test-certificate " + words_)));
    plan_.next.push_back(command_line(instance_, "build " + words_));
    plan_.next.push_back(command_line(instance_, "start " + manifest_.name));
    plan_.next.push_back(command_line(instance_, "enable " + manifest_.name) + "   # whenever jaild starts");
    return {};
  }

  const Instance& instance_;
  std::string words_;
  const manifest::Manifest& manifest_;
  const Example& example_;
  const Options& options_;
  std::string config_;
  std::string drop_ins_;
  std::vector<std::pair<std::string, std::string>> wanted_certificates_;
  Plan plan_;
};

}  // namespace

std::string Step::record_kind() const {
  return kind == "directory" || kind == "unit" ? kind : "file";
}

std::string command_line(const Instance& instance, const std::string& words) {
  return fmt::format("jail {}{}", instance.home.empty() ? "" : "--home " + instance.home + " ", words);
}

Result<Plan> make_plan(const Instance& instance, const std::string& name_or_path,
                       const manifest::Manifest& manifest, const Example& example, const Accounts& accounts,
                       const Options& options) {
  return Planner(instance, name_or_path, manifest, example, options).run(accounts);
}

}  // namespace jail::init
