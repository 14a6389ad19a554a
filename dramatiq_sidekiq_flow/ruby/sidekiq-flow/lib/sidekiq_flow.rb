# frozen_string_literal: true

# Makes the Ruby side of a workflow as safe as the Python side: a crash of a Ruby
# worker never loses a step, runs it too early, or advances it twice.
#
# In the initializer of the server, after everything else that adds middleware:
#
#   require "sidekiq/workflow"
#   require "sidekiq_flow"   # or the file to copy:
#                            # require_relative "../../lib/sidekiq_flow_companion"
#
#   Sidekiq.configure_server do |config|
#     config.server_middleware { |chain| chain.add Sidekiq::Workflow::Middleware }
#     SidekiqFlow::Companion.configure(config)
#   end
#
# It changes:
#
#   Fetch     A job is moved into a hash `swf:inflight:HOST:PID:NONCE:QUEUE` and
#             stays there until it is done. The hash of a worker that has died
#             is put back by any live worker, of either language.
#   Outcome   A job that failed goes from flight to `retry` or `dead` in one
#             step; one that is done leaves flight, keeps its output, counts
#             down its barriers and pushes the next steps in one step.
#   Promoter  A due job goes from `schedule` or `retry` to its queue in one step.
#
# Each of these steps is a Lua script, the same that Python sends. It takes the job
# out of flight first, so a script that is sent twice, or by a worker that was
# taken for dead, does nothing.
#
# For Sidekiq 7 and 8 on Redis 6.2 or newer, or Valkey. To keep Sidekiq Pro's
# super_fetch, pass `fetch: false`.
#
# With Python's RedisCallbackStorage, the rest of long chains is stored once: set
# `cfg.callback_storage = SidekiqFlow::CallbackStorage.new` in the gem's configure.
#
# Require it where workflows are started, too (a web server), after the gem: a run is
# then started by one script, has a record, which Python's `Runs` and the tab show, and
# barriers that live for as long as the delays ahead, and not for the gem's one day.
# SidekiqFlow.run starts a run with callbacks, tags, a deadline or a unique key.
#
# Not covered: an error of the application's own client middleware, while the next steps
# are planned, is a failure of the job, which runs again.

require "digest/sha1"
require "digest/sha2"
require "json"
require "securerandom"
require "set"
require "sidekiq"
require "sidekiq/client"
require "sidekiq/job_retry"
require "sidekiq/job_util"
require "sidekiq/scheduled"

require_relative "sidekiq_flow/version"
require_relative "sidekiq_flow/wrong_queue"
require_relative "sidekiq_flow/errors"
require_relative "sidekiq_flow/requirements"
require_relative "sidekiq_flow/dialect"
require_relative "sidekiq_flow/run"
require_relative "sidekiq_flow/inherited"
require_relative "sidekiq_flow/memory"
require_relative "sidekiq_flow/lifetimes"
require_relative "sidekiq_flow/payload"
require_relative "sidekiq_flow/death_handlers"
require_relative "sidekiq_flow/trouble"
require_relative "sidekiq_flow/lua_files"
require_relative "sidekiq_flow/scripts"
require_relative "sidekiq_flow/replies"
require_relative "sidekiq_flow/fanouts"
require_relative "sidekiq_flow/member"
require_relative "sidekiq_flow/suspects"
require_relative "sidekiq_flow/recovery"
require_relative "sidekiq_flow/worker"
require_relative "sidekiq_flow/fetch"
require_relative "sidekiq_flow/sign_off"
require_relative "sidekiq_flow/step_record"
require_relative "sidekiq_flow/unit"
require_relative "sidekiq_flow/borrowed_unit"
require_relative "sidekiq_flow/retry"
require_relative "sidekiq_flow/processing"
require_relative "sidekiq_flow/failure_writer"
require_relative "sidekiq_flow/cancelled_runs"
require_relative "sidekiq_flow/outcome"
require_relative "sidekiq_flow/changes"
require_relative "sidekiq_flow/execution"
require_relative "sidekiq_flow/pushes"
require_relative "sidekiq_flow/active_job_events"
require_relative "sidekiq_flow/prolongation"
require_relative "sidekiq_flow/output"
require_relative "sidekiq_flow/callback"
require_relative "sidekiq_flow/callback_storage"
require_relative "sidekiq_flow/completion"
require_relative "sidekiq_flow/tree"
require_relative "sidekiq_flow/plan"
require_relative "sidekiq_flow/replacement"
require_relative "sidekiq_flow/python_text"
require_relative "sidekiq_flow/compact_tree"
require_relative "sidekiq_flow/step_numbers"
require_relative "sidekiq_flow/wire"
require_relative "sidekiq_flow/run_options"
require_relative "sidekiq_flow/start_plan"
require_relative "sidekiq_flow/start"
require_relative "sidekiq_flow/starts"
require_relative "sidekiq_flow/named_run"
require_relative "sidekiq_flow/api"
require_relative "sidekiq_flow/new_tree"
require_relative "sidekiq_flow/step_replacement"
require_relative "sidekiq_flow/current_run"
require_relative "sidekiq_flow/wait_for"
require_relative "sidekiq_flow/signals"
require_relative "sidekiq_flow/patient_poller"
require_relative "sidekiq_flow/promoter"
require_relative "sidekiq_flow/configuration"

# The name that applications use.
SidekiqFlow::CallbackStorage = SidekiqFlow::Companion::CallbackStorage

# For processes that are not a server: they do not call configure.
Sidekiq.configure_client { |config| SidekiqFlow::Companion.configure_client(config) }
