# frozen_string_literal: true

# Built by `make companion` from the gem sidekiq-flow 0.1.0: change the gem, not this file.

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

# Built by `make companion` from the version of the Python package.
module SidekiqFlow
  VERSION = "0.1.0"
end

module SidekiqFlow
  # A Ruby process took a job of a Python actor. An ordinary failure: the job is
  # retried, and Python may take it then.
  class WrongQueue < StandardError
    def self.for(job, queue)
      new("This Ruby process takes from queue #{queue.inspect}, and job #{job["jid"]} belongs to the Python actor " \
        "#{job["wrapped"].inspect}. One queue, one language: give the actor a queue_name of its own, or take " \
        "#{queue.inspect} from this process.")
    end
  end
end

module SidekiqFlow::Companion
  # The run cannot continue, and trying again would not help: the job goes to
  # `dead`, with the name of the error as its error class, where a user can retry
  # it.
  class Refused < StandardError; end

  class BarrierExpired < Refused; end

  class CallbacksMissing < Refused; end

  class CommandRefused < Refused; end

  class InvalidCallbacks < Refused; end

  class InvalidNode < Refused; end

  class InvalidPayload < Refused; end

  class MalformedPayload < InvalidPayload; end

  class OtherDialect < Refused; end

  class PoisonPill < Refused; end

  class PushStopped < Refused; end

  class StepDiscarded < Refused; end

  class StepSkipped < Refused; end

  class WrongType < Refused
    def self.of(key)
      new("The Redis key #{key.inspect} holds another type. Remove it.")
    end
  end

  # A workflow, or one of its options, cannot be run; nothing is written.
  class InvalidWorkflow < ArgumentError; end

  # Raised at boot: this process has a Sidekiq or a gem that the companion cannot
  # work with.
  class Unsupported < StandardError; end
end

module SidekiqFlow::Companion
  # What the companion needs of Sidekiq and of the gem, beyond their documented
  # interfaces. A version that it was not tested with is logged. If a method that it
  # overrides or calls is missing, the process does not start: it would lose jobs
  # silently.
  module Requirements
    # The versions that it was tested with. sidekiq-sideline has no releases.
    SIDEKIQ = Gem::Requirement.new(">= 7.3", "< 8.2")
    GEMS = {
      "workflow" => Gem::Requirement.new("~> 0.1.0"),
      "sideline" => Gem::Requirement.new(">= 0")
    }.freeze
    TESTED = "Sidekiq 7.3 to 8.1 and sidekiq-workflow 0.1"

    # Instance methods that are overridden or called, by module.
    METHODS = {
      "Sidekiq::JobRetry" => %i[global local process_retry redis],
      "Sidekiq::Manager" => %i[stop capsule],
      "Sidekiq::Processor" => %i[initialize],
      "Sidekiq::Scheduled::Poller" => %i[initial_wait],
      "Sidekiq::JobUtil" => %i[normalize_item],
      "Sidekiq::Middleware::Chain" => %i[insert_after remove prepend exists? invoke]
    }.freeze

    # The same of the gem: of its module, of its configuration, of its middleware.
    METHODS_OF_GEM = %i[configuration extend_ttl!].freeze
    METHODS_OF_CONFIGURATION = %i[memory callback_storage barrier_ttl].freeze
    METHODS_OF_MIDDLEWARE = %i[call config=].freeze

    class << self
      # Raises Unsupported if a method is missing, and logs a warning for a version
      # that was not tested.
      def check(logger)
        missing = missing_of_sidekiq + missing_of_gem
        raise Unsupported, refusal(missing) unless missing.empty?

        unknown = unknown_versions
        return if unknown.empty?

        logger.warn("sidekiq-flow #{SidekiqFlow::VERSION} was tested with #{TESTED}, not with " \
          "#{unknown.join(" and ")}. It starts, since all methods that it overrides are there.")
      end

      # One line for the log at boot: which versions run.
      def banner
        "sidekiq-flow #{SidekiqFlow::VERSION} with #{versions.join(", ")}"
      end

      private

      def missing_of_sidekiq
        METHODS.flat_map { |name, methods| missing_methods(name, methods) }
      end

      def missing_of_gem
        gem = gem_module
        return ["the gem sidekiq-workflow (require \"sidekiq/workflow\" before configure)"] if gem.nil?

        missing = unanswered(gem, METHODS_OF_GEM, gem.name)
        missing += unanswered(gem.configuration, METHODS_OF_CONFIGURATION, "#{gem}.configuration") if missing.empty?
        missing << "#{gem}::Schema" unless gem.const_defined?(:Schema)
        missing + missing_methods("#{gem}::Middleware", METHODS_OF_MIDDLEWARE)
      end

      def unanswered(object, methods, name)
        methods.reject { |method| object.respond_to?(method) }.map { |method| "#{name}.#{method}" }
      end

      def missing_methods(name, methods)
        return [name] unless Object.const_defined?(name)

        owner = Object.const_get(name)
        methods.reject { |method| owner.method_defined?(method) || owner.private_method_defined?(method) }
          .map { |method| "#{name}##{method}" }
      end

      def gem_module
        Dialect.current.gem
      rescue NameError
        nil
      end

      def refusal(missing)
        "sidekiq-flow #{SidekiqFlow::VERSION} cannot work with #{versions.join(", ")}: " \
          "missing #{missing.join(", ")}. It was tested with #{TESTED}. " \
          "Update sidekiq-flow, or use one of these versions."
      end

      def unknown_versions
        unknown = []
        unknown << "Sidekiq #{Sidekiq::VERSION}" unless known?(SIDEKIQ, Sidekiq::VERSION)
        version = gem_version
        unknown << "#{gem_name} #{version}" if version && !known?(GEMS.fetch(Dialect.current.name), version)
        unknown
      end

      # A prerelease counts as the release that it precedes.
      def known?(requirement, version)
        requirement.satisfied_by?(Gem::Version.new(version).release)
      end

      def versions
        ["Sidekiq #{Sidekiq::VERSION}", "#{gem_name} #{gem_version || "(unknown version)"}"]
      end

      def gem_name
        "sidekiq-#{Dialect.current.name}"
      end

      # From its constant, else from RubyGems; nil if neither knows it.
      def gem_version
        gem = gem_module
        return gem::VERSION if gem&.const_defined?(:VERSION, false)

        Gem.loaded_specs[gem_name]&.version&.to_s
      end
    end
  end
end

module SidekiqFlow::Companion
  # The keys that one of the gem's two names writes: it was renamed
  # sidekiq-sideline after 0.1.0, and its keys were renamed with it.
  Dialect = Struct.new(:name, :run_id, :callbacks, :memory_prefix) do
    # The dialect of the gem that this process has loaded.
    def self.current
      @current ||= DIALECTS.fetch(defined?(Sidekiq::Sideline) ? 1 : 0)
    end

    # Whether this process has loaded a gem.
    def self.loaded?
      defined?(Sidekiq::Sideline) || defined?(Sidekiq::Workflow) ? true : false
    end

    # The dialect of the gem that this process has not loaded.
    def self.other
      DIALECTS.find { |dialect| dialect != current }
    end

    # The module of the gem.
    def gem
      Sidekiq.const_get(name.capitalize)
    end

    def noop_class
      "Sidekiq::#{name.capitalize}::NoopWorker"
    end

    # Whether a job carries the keys of this dialect.
    def of?(job)
      job.key?(run_id) || job.key?(callbacks)
    end
  end

  DIALECTS = [
    Dialect.new("workflow", "workflow_run_id", "workflow_completion_callbacks", "swf:mem"),
    Dialect.new("sideline", "sideline_run_id", "sideline_completion_callbacks", "sl:mem")
  ].freeze
end

module SidekiqFlow::Companion
  # The run that a job is a step of.
  module Run
    # The option of a job that a run calls when a step dies, or at its end: it has the
    # id of the run, and is not a step.
    CALLBACK = "swf_callback"

    module_function

    # The id of the run, or nil for a job that belongs to none.
    def id(job)
      job[Dialect.current.run_id]
    end

    def step?(job)
      !id(job).nil? && !callback?(job)
    end

    def callback?(job)
      job.key?(CALLBACK)
    end

    # The id for a log line, where anything may have been pushed.
    def label(job)
      id(job).to_s[0, 255]
    end
  end
end

module SidekiqFlow::Companion
  # The context that a finished step hands on to the next.
  module Inherited
    # Tenant, locale, time zone and trace. A name that ends in * stands for all
    # keys that begin with the rest.
    KEYS = %w[
      cattr cattr_* locale tz traceparent tracestate baggage
      apartment acts_as_tenant multi_tenant
      trace_propagation_headers sentry_user x-datadog-*
    ].freeze

    class << self
      # Hands on further keys, from now on.
      def add(names)
        @pattern = pattern([*KEYS, *names])
      end

      def from(job)
        @pattern ||= pattern(KEYS)
        job.select { |key, _| key.match?(@pattern) }
      end

      private

      def pattern(names)
        alternatives = names.map { |name| Regexp.escape(name.to_s).sub(/\\\*\z/, ".*") }
        /\A(?:#{alternatives.join("|")})\z/m
      end
    end
  end
end

module SidekiqFlow::Companion
  # Where the outputs of a run's steps are kept: the hash KEY_PREFIX:RUN_ID, for
  # +ttl+ seconds.
  Memory = Struct.new(:key_prefix, :ttl) do
    class << self
      # The option +memory+ of +configure+: a hash, false for none, or nil for
      # the memory of the gem.
      attr_writer :option

      # The memory in use, or nil. Resolved at the first use, since the gem may be
      # configured after the companion.
      def current
        return @current if defined?(@current)

        @current = resolve
      end

      # The key of the memory of a job's run; "" if there is none.
      def key_for(job)
        id = Run.id(job)
        (current && id.is_a?(String) && !id.empty?) ? "#{current.key_prefix}:#{id}" : ""
      end

      private

      def resolve
        return nil if @option == false
        return of_gem(Dialect.current.gem.configuration.memory) if @option.nil?

        new(@option.fetch(:key_prefix, Dialect.current.memory_prefix), @option.fetch(:ttl, 86_400))
      end

      # The gem's RedisHashMemory has no readers for its settings.
      def of_gem(memory)
        return nil if memory.nil?

        prefix = memory.instance_variable_get(:@key_prefix)
        ttl = memory.instance_variable_get(:@ttl)
        return new(prefix, Integer(ttl)) if prefix && ttl

        raise ArgumentError, "#{memory.class} is not a RedisHashMemory: pass memory: {key_prefix: ..., ttl: ...} " \
          "to SidekiqFlow::Companion.configure"
      end
    end
  end
end

module SidekiqFlow::Companion
  # How long the Redis keys of a run live, in seconds.
  module Lifetimes
    # Sidekiq's 25 retries take 21 days: a barrier outlives them.
    RETRY_HORIZON = 21 * 86_400

    # Redis refuses a TTL whose end it cannot represent.
    MAX_TTL = 1000 * 365 * 86_400

    # A released barrier is kept for a day, as the gem keeps it.
    RELEASED_TTL = 86_400

    module_function

    # The keys that the run of a job needs, and for how many seconds from the
    # moment when the job continues. A payload that cannot be read needs none: a
    # failed job must be able to leave flight.
    def needs(job)
      stack = Callback.stack(job)
      chains = CallbackStorage.chains(job[Dialect.current.callbacks])
      keys = [*stack.flat_map(&:keys), Memory.key_for(job), *chains, *StepRecord.new(job).keys].reject(&:empty?)
      [keys, [barrier_ttl(nil, stack), Memory.current&.ttl || 0].max]
    rescue
      [[], RETRY_HORIZON]
    end

    # The seconds of a number, or of a duration of ActiveSupport, which has to_f and is not
    # a Numeric; nil of anything else.
    def seconds(value)
      value.to_f if value.respond_to?(:to_f) && !value.is_a?(String) && !value.is_a?(Time)
    end

    # The TTL of barriers: all delays ahead, and the retries of a job.
    def barrier_ttl(node, stack)
      trees = [*stack.map(&:remaining), node].compact
      delays = trees.sum { |tree| Tree.total_delay(tree) }
      [RETRY_HORIZON + (delays / 1000.0).to_i + 1, MAX_TTL].min
    end
  end
end

module SidekiqFlow::Companion
  # Reads a job as it stands in Redis, and writes the form in which it goes to
  # `dead`.
  module Payload
    # Fields that Sidekiq's rules for failures calculate with, unchecked.
    READ_BY_SIDEKIQ = {
      "backtrace" => ->(value) { value == true || value == false || value.is_a?(Integer) },
      "failed_at" => ->(value) { value.is_a?(Numeric) && value.between?(0, 1e14) },
      # Sidekiq subtracts one when a user presses "retry": -1 is common.
      "retry_count" => ->(value) { value.is_a?(Integer) && value.between?(-1_000_000, 1_000_000) },
      "retry_for" => ->(value) { value.is_a?(Numeric) && value.between?(0, 1_000_000_000) },
      "retry_queue" => ->(value) { value.is_a?(String) },
      "wrapped" => ->(value) { value.is_a?(String) }
    }.freeze

    # The class of a job in `dead` that holds bytes which are not a job.
    MALFORMED = "MalformedPayload"

    # Half of a surrogate pair, and numbers such as 1e999: Ruby reads them and
    # cannot write them.
    SUSPICIOUS = /\\u[dD]|[eE]\+?\d{3}|\d{300}/

    class << self
      # The JSON object of a payload, or nil.
      def parse(raw)
        text = raw.dup.force_encoding("UTF-8")
        return nil unless text.valid_encoding?

        job = JSON.parse(text)
        job if job.is_a?(Hash)
      rescue JSON::JSONError, EncodingError
        nil
      end

      # The error of a payload that Sidekiq must not be given, or nil: a payload
      # that its Processor cannot read ends a thread and stays in flight.
      def fault(raw)
        job = parse(raw)
        return MalformedPayload.new("The payload is not a JSON object.") if job.nil?
        if raw.match?(SUSPICIOUS) && !writable?(job)
          return MalformedPayload.new("The payload holds values that JSON cannot express.")
        end

        fault_of_shape(job) || fault_of_field(job)
      end

      # The payload that +dead+ has wrapped; any other payload as it is.
      def unwrapped(raw)
        return raw unless raw.include?(MALFORMED)

        job = parse(raw)
        return raw unless job && job["class"] == MALFORMED && job["raw"].is_a?(String)

        unwrapped(job["raw"].unpack1("m0"))
      rescue ArgumentError # not base64
        raw
      end

      # The payload for `dead` of a job that is not to run. If Sidekiq could not
      # push it again, it is wrapped: `args` shows it, `raw` holds its bytes in
      # base64.
      def dead(raw, error, queue)
        raw = unwrapped(raw)
        job = parse(raw)
        return wrapped(raw, MalformedPayload.new("The payload is not a JSON object."), queue) if job.nil?
        return wrapped(raw, error, queue, job["jid"]) unless job["class"].is_a?(String) && job["args"].is_a?(Array)

        job["jid"] = jid(job, raw)
        JSON.generate(failed(job, error, queue))
      rescue JSON::JSONError, EncodingError # Infinity, half of a surrogate pair
        wrapped(raw, error, queue)
      end

      # The id of a job, or one made of its bytes: the same bytes are the same job.
      def jid(job, raw)
        id = job && job["jid"]
        (id.is_a?(String) && !id.empty?) ? id : fingerprint(raw)
      end

      def fingerprint(raw)
        Digest::SHA1.hexdigest(raw)[0, 24]
      end

      # A time as this Sidekiq writes it: 7.x float seconds, 8.x milliseconds.
      def stamp(now = Time.now.to_f)
        (Sidekiq::VERSION.to_i >= 8) ? (now * 1000).floor : now
      end

      private

      def fault_of_shape(job)
        klass, args = job.values_at("class", "args")
        unless klass.is_a?(String) && !klass.empty?
          return InvalidPayload.new("A job needs a class, not #{klass.inspect[0, 200]}.")
        end

        InvalidPayload.new("A job needs an array of args, not #{args.inspect[0, 200]}.") unless args.is_a?(Array)
      end

      def fault_of_field(job)
        name, = READ_BY_SIDEKIQ.find { |field, readable| !job[field].nil? && !readable.call(job[field]) }
        InvalidPayload.new("The job's #{name} cannot be read: #{job[name].inspect[0, 200]}.") if name
      end

      # A job with the fields that Sidekiq sets at a failure (job_retry.rb,
      # process_retry).
      def failed(job, error, queue)
        after = job.merge(
          "queue" => job["retry_queue"] || queue,
          "error_message" => error.message.to_s[0, 10_000].scrub,
          "error_class" => error.class.name.delete_prefix("SidekiqFlow::Companion::")
        )
        if after["retry_count"].is_a?(Integer)
          after.merge("retried_at" => stamp, "retry_count" => after["retry_count"] + 1)
        else
          after.merge("failed_at" => stamp, "retry_count" => 0)
        end
      end

      def wrapped(raw, error, queue, jid = nil)
        wrapper = {
          "class" => MALFORMED, "args" => [raw.dup.force_encoding("UTF-8").scrub[0, 1000]],
          "jid" => (jid.is_a?(String) && !jid.empty?) ? jid : fingerprint(raw),
          "queue" => queue, "retry" => 0, "created_at" => stamp, "raw" => [raw].pack("m0")
        }
        JSON.generate(failed(wrapper, error, queue))
      end

      def writable?(job)
        JSON.generate(job)
        true
      rescue JSON::JSONError, EncodingError
        false
      end
    end
  end
end

module SidekiqFlow::Companion
  # The death handlers of the application, and the companion's own.
  module DeathHandlers
    module_function

    # Calls all of them, as Sidekiq does for a job that its own rules bury.
    def call(config, job, error)
      config[:death_handlers].each do |handler|
        handler.call(job, error)
      rescue => handler_error
        config.handle_exception(handler_error, {context: "Error calling death handler", job: job})
      end
    end

    # Logs the death of a step.
    def log(config, job, error)
      return unless Run.step?(job)

      name = (job["display_class"] || job["class"]).to_s[0, 255]
      config.logger.error("Job #{job["jid"]} (#{name}) of run #{Run.label(job)} is dead: #{error.class}. " \
        "The run waits; retrying the job resumes it.")
    end
  end
end

module SidekiqFlow::Companion
  # Tells apart the errors of Redis. Some are about the server (unreachable, not a
  # master, out of memory, busy, refusing our login): they pass, so the companion
  # keeps its jobs, waits, and tries again. The others are about the command: trying
  # again does not help.
  module Trouble
    CODES = %w[
      READONLY LOADING MASTERDOWN NOREPLICAS MISCONF OOM BUSY TRYAGAIN UNBLOCKED
      CLUSTERDOWN NOAUTH WRONGPASS NOPERM
    ].freeze

    # Before Redis 7, an error in a script follows a prefix.
    PREFIX = /-?(?:ERR Error running script .*?: -?|EXECABORT .*?: -?)?/m
    SERVER = /\A#{PREFIX}(?:#{CODES.join("|")})\b/m
    OTHERS = /max number of clients|ACL failure in script|user executing the script/

    # Seconds between two log lines.
    LOG_EVERY = 1

    # The first and the longest pause between two attempts, in seconds.
    PAUSE = 0.1
    MAX_PAUSE = 2

    class << self
      # Runs the block until the server answers, so the block must be safe to run
      # twice. Raises Refused if the server refuses the command for good.
      def patiently(logger)
        pause = PAUSE
        begin
          yield
        rescue RedisClient::Error, ConnectionPool::TimeoutError => error
          raise refusal(error) unless passes?(error)

          log(logger, error)
          sleep(pause)
          pause = [2 * pause, MAX_PAUSE].min
          retry
        end
      end

      # Whether an error is about the server, and so worth waiting for.
      def passes?(error)
        case error
        when RedisClient::ConnectionError, ConnectionPool::TimeoutError then true
        when RedisClient::CommandError then error.message.match?(SERVER) || error.message.match?(OTHERS)
        else false
        end
      end

      # Logs an error that passes, once for all threads that wait.
      def log(logger, error)
        now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
        return if @logged && now - @logged < LOG_EVERY

        @logged = now
        logger.warn("Redis cannot serve this process now, trying again: #{error.class}: #{error.message}")
      end

      private

      def refusal(error)
        kind = error.message.match?(/\bWRONGTYPE\b/) ? WrongType : CommandRefused
        kind.new("Redis refused a command: #{error.message}")
      end
    end
  end
end

module SidekiqFlow::Companion
  # The Lua scripts by name, read from behind the line that ends the Ruby of this file.
  LUA = File.read(__FILE__, encoding: "UTF-8")
    .split(/^__END__\n/, 2).last
    .split(/^-- @file (\w+)\.lua\n/).drop(1).each_slice(2).to_h.freeze
end

module SidekiqFlow::Companion
  # Sends the Lua scripts by their SHA, as Python does.
  module Scripts
    SOURCES = LUA
    SHAS = SOURCES.transform_values { |source| Digest::SHA1.hexdigest(source) }.freeze

    # Returns the script's reply. +conn+ is what config.redis yields.
    def self.run(conn, name, keys, arguments)
      send_with(:call, conn, name, keys, arguments)
    end

    # The same, and does not send it again if the connection is lost.
    def self.run_once(conn, name, keys, arguments)
      send_with(:call_once, conn, name, keys, arguments)
    end

    def self.send_with(method, conn, name, keys, arguments)
      conn.public_send(method, "EVALSHA", SHAS.fetch(name), keys.size, *keys, *arguments)
    rescue RedisClient::CommandError => error
      raise unless error.message.start_with?("NOSCRIPT")

      conn.public_send(method, "EVAL", SOURCES.fetch(name), keys.size, *keys, *arguments)
    end
    private_class_method :send_with
  end
end

module SidekiqFlow::Companion
  # Reads the replies of the scripts: one reader for each script, which returns a
  # value, or raises the error that the reply stands for. The head of each script
  # lists its replies; in Python, store/outcomes.py is the same.
  module Replies
    # Nothing is written: the callback of that number fires (1 is the top), and the
    # script needs its plan.
    NeedsPlan = Struct.new(:callback)

    # The number of steps of a run, to which another replacement has added some.
    Total = Struct.new(:value)

    # Nothing is written: the run of that id has the unique key, and lives.
    Taken = Struct.new(:run_id)

    # A fan-out waits because that Redis key is of another type.
    Blocked = Struct.new(:key)

    # What a heartbeat found: members that are dead, members of this process with
    # more in flight than they hold, and whether a fan-out is not pushed to its end.
    Beat = Struct.new(:dead, :differing, :fanouts)

    # How many jobs of a dead worker are back in their queue, went to `dead`, and
    # wait for a trial; the numbers (1 is the first) of those that went to `dead`,
    # and of those that stay because `dead` is of another type.
    Recovered = Struct.new(:back, :dead, :alone, :buried, :kept)

    # The numbers (1 is the first) of due jobs whose queue is of another type, and
    # of those that stay because `dead`, `queues` or the set itself is.
    Promoted = Struct.new(:misplaced, :stuck)

    class << self
      # :done, :gone (not in flight here: sent twice, or recovered elsewhere),
      # :cancelled (done, and the run is cancelled: nothing of it starts),
      # :stage_lost (nothing is written: the staged fan-out expired), or NeedsPlan.
      def advance(reply)
        kind, detail = reply
        case kind
        when "DONE" then :done
        when "GONE" then :gone
        when "CANCELLED" then :cancelled
        when "PLAN" then NeedsPlan.new(detail)
        when "STAGE" then :stage_lost
        when "EXPIRED"
          raise BarrierExpired, "The barrier #{detail} is gone, so the run cannot continue from here. " \
            "It expired, or it was deleted."
        else
          raise WrongType.of(detail)
        end
      end

      # :done, :started (a run of this id was started before), :stage_lost (nothing is
      # written: the staged fan-out expired), or Taken.
      def start(reply)
        kind, detail = checked(reply)
        case kind
        when "DONE" then :done
        when "STARTED" then :started
        when "STAGE" then :stage_lost
        else Taken.new(detail)
        end
      end

      # As advance, or Total (nothing is written).
      def replace(reply)
        kind, total = reply
        (kind == "TOTAL") ? Total.new(total) : advance(reply)
      end

      # The number of steps that a signal moved to their queues, :ended (the run is done or
      # cancelled), or :unknown.
      def signal(reply)
        kind, moved = checked(reply)
        {"DONE" => moved, "ENDED" => :ended, "UNKNOWN" => :unknown}.fetch(kind)
      end

      # Returns when the job has left flight, by this call or before it; or :stage_lost
      # (nothing is written: the staged fan-out expired).
      def fail(reply)
        kind, key = reply
        raise WrongType, "The Redis key #{key.inspect} is of another type. Remove it." if kind == "TYPE"

        :stage_lost if kind == "STAGE"
      end

      # Returns when the job has left flight, by this call or before it.
      def park(reply)
        checked(reply)
      end

      # The payload of the one job that was asked for, nil if the queue is empty, or
      # :unregistered if this worker was declared dead.
      def fetch(reply)
        return :unregistered if reply.nil?

        lengths, payload = checked(reply)
        payload unless lengths.empty?
      end

      # The payload of a suspect, or nil if none is to be tried now.
      def trial(reply)
        kind, payload = checked(reply)
        payload if kind == "TRIAL"
      end

      def beat(reply)
        dead, differing, fanouts = reply
        Beat.new(dead, differing, fanouts == 1)
      end

      # Recovered, or nil if the worker lives.
      def recover(reply)
        kind, *found = checked(reply)
        Recovered.new(*found) if kind == "DONE"
      end

      def promote(reply)
        _moved, misplaced, stuck = reply
        Promoted.new(misplaced, stuck)
      end

      # :more (call again), :done, or Blocked.
      def pour(reply)
        kind, key = reply
        case kind
        when "MORE" then :more
        when "DONE" then :done
        else Blocked.new(key)
        end
      end

      private

      def checked(reply)
        kind, key = reply
        raise WrongType.of(key) if kind == "TYPE"

        reply
      end
    end
  end
end

module SidekiqFlow::Companion
  # Fan-outs that are too large for one script. They are staged as a list that no
  # run refers to, committed by the script that advances the run, then poured into
  # the queues part by part. After a crash, any process pours the rest.
  module Fanouts
    FANOUTS = "swf:fanouts"

    # The most elements and bytes that one script stages or pours.
    PART_ELEMENTS = 1000
    PART_BYTES = 1024 * 1024

    # Seconds after which a list that is not committed expires.
    STAGE_TTL = 3600

    # Fan-outs that wait because a key is of another type; each is logged once.
    WAITING = Set.new

    class << self
      def key(id)
        "swf:fanout:#{id}"
      end

      # Stages a list of elements (see pour.lua). Returns its ID.
      def stage(conn, elements)
        id = SecureRandom.hex(12)
        parts(elements).each do |part|
          # One transaction, so that the list never lacks its TTL. Sent once, so that no part is there twice.
          conn.multi do |transaction|
            transaction.call_once("RPUSH", key(id), *part)
            transaction.call_once("EXPIRE", key(id), STAGE_TTL)
          end
        end
        id
      end

      # Pushes the rest of all committed fan-outs.
      def pour_all(conn, logger)
        ids = conn.call("ZRANGE", FANOUTS, 0, -1)
        ids.each { |id| pour(conn, logger, id) }
      end

      private

      def pour(conn, logger, id)
        loop do
          keys = [FANOUTS, key(id), "queues", "schedule"]
          outcome = Replies.pour(Scripts.run(conn, "pour", keys, [id, PART_ELEMENTS, PART_BYTES]))
          next if outcome == :more
          return WAITING.delete(id) if outcome == :done

          log_waiting(logger, outcome.key) if WAITING.add?(id)
          return nil
        end
      end

      def log_waiting(logger, key)
        logger.error("The Redis key #{key.inspect} holds another type, so a fan-out waits. Remove it.")
      end

      def parts(elements)
        found = [[]]
        size = 0
        elements.each do |element|
          if found.last.size == PART_ELEMENTS || size >= PART_BYTES
            found << []
            size = 0
          end
          found.last << element
          size += element.bytesize
        end
        found
      end
    end
  end
end

module SidekiqFlow::Companion
  # The names under which processes are registered, one for each of their queues:
  # HOST:PID:NONCE:QUEUE.
  module Member
    module_function

    # HOST:PID:NONCE of this process.
    def identity
      component = Object.new.extend(Sidekiq::Component)
      "#{component.hostname.tr(":", "-")}:#{::Process.pid}:#{component.process_nonce}"
    end

    # The hash of the jobs that a member has in flight.
    def in_flight(member)
      "swf:inflight:#{member}"
    end

    def queue(member)
      member.split(":", 4).fetch(3)
    end

    # Whether it is a name of this form. Nothing can be in flight under another.
    def valid?(member)
      member.valid_encoding? && member.split(":", 4).size == 4
    end
  end
end

module SidekiqFlow::Companion
  # Jobs that were running in more than one worker that died (see recover.lua).
  # Each is tried while no other suspect of its queue runs: a job that kills its
  # worker is then found, and no other suspect is counted for that death.
  class Suspects
    include Sidekiq::Component

    # Seconds after which a trial that still runs blocks no other.
    TRIAL_TIME = 60

    # Whether a receipt is that of a suspect.
    def self.receipt?(receipt)
      receipt.end_with?("!")
    end

    def initialize(config, timeout)
      @config = config
      @timeout = timeout
      @lock = Mutex.new
      @holders = Hash.new { |members, queue| members[queue] = [] }
    end

    # Dead workers that hold suspects of a queue.
    def holders(queue)
      @lock.synchronize { @holders[queue].dup }
    end

    def add(queue, dead)
      @lock.synchronize { @holders[queue] << dead }
    end

    # Forgets a holder until a heartbeat finds it again.
    def forget(queue, dead)
      @lock.synchronize { @holders[queue].delete(dead) }
    end

    def clear
      @lock.synchronize { @holders.clear }
    end

    # Takes a suspect of a dead worker into flight as BASE:1. Returns its payload, or
    # nil if none is to be tried now (see trial.lua).
    def try(queue, dead, own, base)
      keys = [Worker::WORKERS, Member.in_flight(dead), Member.in_flight(own), "swf:trial:#{queue}", "paused"]
      arguments = [dead, own, queue, @timeout.to_s, base, TRIAL_TIME]
      payload = Replies.trial(redis { |conn| Scripts.run(conn, "trial", keys, arguments) })
      payload if payload && begin_trial(own, base)
    end

    private

    # From here on the job counts as begun, should this process die.
    def begin_trial(own, base)
      Trouble.patiently(logger) do
        redis { |conn| Scripts.run(conn, "begin", [Member.in_flight(own)], ["#{base}:1?"]) } == 1
      end
    end
  end
end

module SidekiqFlow::Companion
  # Puts back the jobs that dead workers had in flight.
  class Recovery
    include Sidekiq::Component

    # A job that was running in so many workers when they died, within that many
    # seconds, is a poison pill: it goes to `dead`.
    MAX_RECOVERIES = 3
    RECOVERY_WINDOW = 72 * 3600

    # The number of dead workers that one heartbeat names, and how often it asks
    # for more of them.
    PAGE = 16
    PAGES = 10

    # Jobs that one script call puts back.
    SLICE = 100

    def initialize(config, timeout, suspects)
      @config = config
      @timeout = timeout
      @suspects = suspects
      @troubled = Set.new
    end

    # Recovers the workers that a heartbeat has named, and asks for further ones:
    # those that cannot be recovered are passed over.
    def recover_all(stale)
      passed = 0
      @suspects.clear
      PAGES.times do
        passed += stale.count { |member| !recover_guarded(member) }
        break if stale.size < PAGE

        reply = redis { |conn| Scripts.run(conn, "beat", [Worker::WORKERS], [@timeout.to_s, passed]) }
        stale = Replies.beat(reply).dead
      end
    end

    # Puts back what a member of this process has in flight, and removes it from
    # the workers. Threads that still work lose their job: it runs again elsewhere,
    # as after any hard shutdown of Sidekiq.
    def hand_back(member)
      3.times do
        receipts = in_flight(member).keys.reject { |receipt| Suspects.receipt?(receipt) }
        requeue(member, receipts.sort_by { |receipt| receipt.to_i(16) }) unless receipts.empty?
        # Removes the member, unless a thread has just fetched once more.
        run_script(member, [], 0)
        return if redis { |conn| conn.call("ZSCORE", Worker::WORKERS, member) }.nil?
      end
    end

    def requeue(member, receipts)
      keys = [Member.in_flight(member), "queue:#{Member.queue(member)}"]
      redis { |conn| Scripts.run(conn, "requeue", keys, receipts) }
    end

    # Logs an error that a record of Redis causes, once for each member.
    def log_once(member, text)
      logger.error(text) if @troubled.add?(member)
    end

    private

    # Recovers one member; an error in its record does not stop the others.
    # Returns whether nothing of the member is left.
    def recover_guarded(member)
      return deregister(member) unless Member.valid?(member)

      recover(member).tap { @troubled.delete(member) }
    rescue => error
      raise if Trouble.passes?(error)

      log_once(member, "Worker #{member} is dead, and its jobs cannot be put back: #{error.message}")
      false
    end

    def deregister(member)
      redis { |conn| conn.call("ZREM", Worker::WORKERS, member) }
      logger.error("Removed an entry of #{Worker::WORKERS} that does not name a worker: #{member.inspect[0, 200]}")
      true
    end

    def recover(member)
      waiting, jobs = in_flight(member).partition { |receipt, _| Suspects.receipt?(receipt) }
      parts = []
      slices(jobs).each do |slice|
        recovered = recover_slice(member, slice)
        return false if recovered.nil?

        parts << recovered
      end
      has_suspects = waiting.any? || parts.any? { |part| part.alone > 0 }
      @suspects.add(Member.queue(member), member) if has_suspects
      log_recovered(member, parts)
      !has_suspects
    end

    # The job that is pushed last is taken next. An empty slice deregisters a
    # member that has nothing in flight.
    def slices(jobs)
      newest_first = jobs.sort_by { |receipt, _| receipt.b.split(":").map { |part| part.to_i(16) } }.reverse
      newest_first.empty? ? [[]] : newest_first.each_slice(SLICE)
    end

    # What was recovered, or nil if the member lives.
    def recover_slice(member, slice)
      queue = Member.queue(member)
      orphans = slice.map do |receipt, raw|
        [receipt, Payload.jid(Payload.parse(raw), raw), Payload.dead(raw, poison_pill, queue)]
      end
      recovered = Replies.recover(run_script(member, orphans, @timeout))
      return nil if recovered.nil?

      extend_lifetimes(recovered.buried.map { |number| slice[number - 1].last })
      raise WrongType, "The Redis key \"dead\" is not a sorted set. Remove it." unless recovered.kept.empty?

      recovered
    end

    def poison_pill
      PoisonPill.new("The job had begun when its worker died, #{MAX_RECOVERIES} times within " \
        "#{RECOVERY_WINDOW / 3600} hours. Look for what kills the process, then retry it.")
    end

    # Dead jobs may be retried for as long as `dead` keeps them.
    def extend_lifetimes(payloads)
      payloads.each do |raw|
        keys, ttl = Lifetimes.needs(Payload.parse(raw) || {})
        ttl += config[:dead_timeout_in_seconds]
        redis { |conn| Scripts.run(conn, "extend", ["", *keys], [ttl, 0]) } unless keys.empty?
      end
    end

    def run_script(member, orphans, timeout)
      keys = [Worker::WORKERS, Member.in_flight(member), "queue:#{Member.queue(member)}", "dead"]
      keys.concat(orphans.map { |_, jid, _| "swf:recovered:#{jid}" })
      arguments = [member, timeout.to_s, MAX_RECOVERIES, RECOVERY_WINDOW, Time.now.to_f.to_s]
      arguments.concat(orphans.flat_map { |receipt, _, dead| [receipt, dead] })
      redis { |conn| Scripts.run(conn, "recover", keys, arguments) }
    end

    def in_flight(member)
      fields = redis { |conn| conn.call("HGETALL", Member.in_flight(member)) }
      fields.is_a?(Array) ? fields.each_slice(2).to_h : fields
    end

    def log_recovered(member, parts)
      back = parts.sum(&:back)
      dead = parts.sum(&:dead)
      alone = parts.sum(&:alone)
      return if (back + dead + alone).zero?

      logger.warn("Worker #{member} is dead: #{back} of its jobs are back in queue #{Member.queue(member)}, " \
        "#{dead} are dead, #{alone} run alone next.")
    end
  end
end

module SidekiqFlow::Companion
  # This process as other workers see it: the sorted set swf:workers holds a member
  # HOST:PID:NONCE:QUEUE for each of its queues, scored by its last heartbeat. A
  # heartbeat also returns the members that were silent for too long; the worker
  # that hears of one first puts its jobs back.
  class Worker
    include Sidekiq::Component

    WORKERS = "swf:workers"

    # The longest time between two heartbeats, in seconds.
    MAX_INTERVAL = 10.0

    attr_reader :suspects

    # +timeout+: seconds without a heartbeat after which a worker is dead.
    def initialize(config, timeout)
      @config = config
      @timeout = Float(timeout)
      @interval = [MAX_INTERVAL, @timeout / 5].min
      @suspects = Suspects.new(config, @timeout)
      @recovery = Recovery.new(config, @timeout, @suspects)
      @lock = Mutex.new
      @wake = ConditionVariable.new
      @members = Set.new
      @fetchers = Set.new
      @held = Set.new
      @left = Set.new
      @fetches = 0
      @open = Set.new
      @unanswered = Hash.new { |bases, queue| bases[queue] = [] }
      @thread = nil
    end

    def member(queue)
      "#{Member.identity}:#{queue}"
    end

    # Begins to send heartbeats for the queues of a fetcher.
    def join(fetcher, queues)
      @lock.synchronize do
        @fetchers << fetcher
        @members.merge(queues.map { |queue| member(queue) })
        unless @thread&.alive?
          @running = true
          @thread = safe_thread("flow heartbeat") { beat_on }
        end
      end
      beat
    end

    # The last fetcher to leave deregisters the process: nothing stays in flight.
    def leave(fetcher)
      members = @lock.synchronize do
        return unless @fetchers.delete?(fetcher) && @fetchers.empty?

        @running = false
        @wake.broadcast
        @members.to_a.tap { @members.clear }
      end
      @thread&.join
      members.each { |member| hand_back(member) }
    end

    # Yields the base of a receipt, which names one fetch of this process. If the
    # reply of a fetch was lost, its base is used again by the next thread: the
    # script then returns the job that it has moved.
    def with_base(queue)
      base = @lock.synchronize do
        (@unanswered[queue].pop || (@fetches += 1).to_s(16)).tap { |found| @open << found }
      end
      reply = yield base
    ensure
      if base
        @lock.synchronize do
          @unanswered[queue] << base if reply.nil?
          @open.delete(base)
        end
      end
    end

    # Whether a fetch from this queue may have moved a job that no thread received.
    def unanswered?(queue)
      @lock.synchronize { @unanswered[queue].any? }
    end

    def hold(unit)
      @lock.synchronize { @held << unit }
    end

    def release(unit)
      @lock.synchronize { @held.delete(unit) }
    end

    # For a job that Redis can store nowhere else: it stays in flight until this
    # process ends.
    def leave_in_flight(unit)
      @lock.synchronize { @left << unit.receipt }
      release(unit)
    end

    # Sends a heartbeat, and recovers the workers that it reports as dead.
    def beat
      members = @lock.synchronize { @members.to_a }
      return if members.empty?

      arguments = [@timeout.to_s, 0, *members.zip(held_by(members)).flatten]
      found = Replies.beat(redis { |conn| Scripts.run(conn, "beat", [WORKERS], arguments) })
      found.differing.each { |member| reconcile(member) }
      @recovery.recover_all(found.dead)
      redis { |conn| Fanouts.pour_all(conn, logger) } if found.fanouts
    end

    private

    def beat_on
      loop do
        @lock.synchronize { @wake.wait(@lock, @interval) if @running }
        return unless @running

        begin
          beat
          requeue_abandoned
        rescue => error
          logger.warn("The heartbeat failed, the next one tries again: #{error.message}")
        end
      end
    end

    def held_by(members)
      @lock.synchronize { members.map { |member| @held.count { |unit| unit.member == member } } }
    end

    # A thread that died with its job (not by an error of the job: Sidekiq settles
    # those) has left it in flight of a process that lives.
    def requeue_abandoned
      abandoned = @lock.synchronize { @held.reject { |unit| unit.thread.alive? } }
      abandoned.each(&:requeue_now)
    end

    # Puts back jobs that are in flight here and that no thread holds: those of a
    # fetch that was delivered late, and suspects that were marked while this process
    # was taken for dead. A worker that lives has no trials, so they would wait until it ends.
    def reconcile(member)
      receipts = redis { |conn| conn.call("HKEYS", Member.in_flight(member)) }
      unknown = unknown(receipts)
      return if unknown.empty?

      @recovery.requeue(member, unknown)
      logger.warn("Put back #{unknown.size} jobs of queue #{Member.queue(member)} that were in flight here " \
        "and that no thread held.")
    rescue RedisClient::CommandError => error
      raise if Trouble.passes?(error)

      @recovery.log_once(member, "The jobs in flight of #{member} cannot be compared: #{error.message}")
    end

    def unknown(receipts)
      @lock.synchronize do
        known = [*@held.map(&:receipt), *@left]
        bases = [*@open, *@unanswered.each_value.flat_map(&:itself)]
        (receipts - known).reject { |receipt| bases.include?(receipt.b[/\A\h+(?=:)/n]) }
      end
    end

    def hand_back(member)
      @recovery.hand_back(member)
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      logger.warn("Jobs of #{member} stay in flight for another worker to recover: #{error.message}")
    end
  end
end

module SidekiqFlow::Companion
  # Sidekiq's fetcher (config[:fetch_class]): takes jobs from the queues into flight.
  class Fetch
    include Sidekiq::Component

    # Seconds that a thread blocks: TIMEOUT until it checks whether the process is to
    # stop, BRIEF if there are more queues than threads that watch them.
    TIMEOUT = 2
    BRIEF = 0.2

    # Seconds until a queue that is not a list is read again.
    SHUN = 10

    attr_reader :worker, :retrier

    def initialize(capsule)
      @config = capsule
      @worker = capsule[:flow_worker]
      @retrier = Retry.new(capsule)
      @queues = capsule.queues.dup
      @strict = capsule.mode == :strict
      @lock = Mutex.new
      @watched = Set.new
      @left = ConditionVariable.new
      @shunned = {}
      @joined = false
    end

    def retrieve_work
      Unit.fetched = nil
      join unless @joined
      order = (@strict ? @queues : @queues.shuffle).uniq.reject { |queue| shunned?(queue) }
      if order.empty? # each of them is shunned
        sleep(TIMEOUT)
        return nil
      end
      Unit.fetched = take_from(order)
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      raise unless Trouble.passes?(error)

      # Sidekiq would log the backtrace of each thread.
      Trouble.log(logger, error)
      sleep(1)
      nil
    end

    # Called by Sidekiq's Manager at shutdown, with the jobs of threads that it is
    # about to kill.
    def bulk_requeue(units)
      return if units.empty?

      units.each(&:requeue_now)
      logger.info("Put #{units.size} jobs back")
    rescue => error
      logger.warn("Could not put #{units.size} jobs back, another worker will do it: #{error.message}")
    end

    # Called when the Manager of this capsule has stopped.
    def sign_off
      worker.leave(self)
    rescue => error
      logger.warn("This worker could not deregister, another one will recover its jobs: #{error.message}")
    end

    private

    def join
      worker.join(self, @queues.uniq)
      @joined = true
    end

    # A unit, or nil. Watches the queues if all of them are empty.
    def take_from(order)
      first(order) { |queue| suspect(queue) } || first_filled(order)
    end

    def first_filled(order)
      candidates = (order.size > 2) ? filled(order) : order
      unit = first(candidates) { |queue| fetch(queue) }
      return unit if unit

      watch(order) if candidates.size == order.size || candidates.empty?
      nil
    end

    def first(queues)
      queues.each do |queue|
        unit = shunning(queue) { yield queue }
        return unit if unit
      end
      nil
    end

    # Takes one job, as Sidekiq's own fetcher does: a thread holds what it runs.
    def fetch(queue)
      member = worker.member(queue)
      keys = ["queue:#{queue}", Member.in_flight(member), Worker::WORKERS]
      worker.with_base(queue) do |base|
        payload = Replies.fetch(redis { |conn| Scripts.run(conn, "fetch", keys, [member, base, 1, 1, "", 0]) })
        return register_again if payload == :unregistered

        payload ? runnable(Unit.new(self, queue, member, "#{base}:1", payload)) : false
      end
    end

    def register_again
      logger.warn("This worker missed its heartbeats and was declared dead; re-registering under the same identity.")
      worker.beat
      nil
    end

    # Takes a suspect of a dead worker, if one waits and no other is tried.
    def suspect(queue)
      trials = "trial of #{queue}"
      holders = worker.suspects.holders(queue)
      holders = [""] if holders.empty? && worker.unanswered?(trials)
      holders.each do |dead|
        unit = worker.with_base(trials) { |base| try_suspect(queue, dead, base) }
        return unit if unit
      end
      nil
    end

    def try_suspect(queue, dead, base)
      member = worker.member(queue)
      payload = worker.suspects.try(queue, dead, member, base)
      return runnable(Unit.new(self, queue, member, "#{base}:1", payload)) if payload

      worker.suspects.forget(queue, dead)
      false
    end

    # The unit, or false if it must not run: then it is in `dead`.
    def runnable(unit)
      error = Payload.fault(unit.job)
      return unit if error.nil?

      unit.bury(error)
      false
    end

    # Leaves a queue alone for a while if it is not a list, so that it neither stops
    # other queues nor fills the log.
    def shunning(queue)
      yield
    rescue RedisClient::CommandError, WrongType => error
      raise if Trouble.passes?(error)

      logger.error("Queue #{queue} cannot be read, trying again in #{SHUN} seconds: #{error.message}")
      @lock.synchronize { @shunned[queue] = now + SHUN }
      nil
    end

    def shunned?(queue)
      @lock.synchronize { @shunned[queue]&.then { |until_then| now < until_then } }
    end

    def now
      ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
    end

    # The queues that hold something, in the same order; one round trip.
    def filled(order)
      lengths = redis do |conn|
        conn.pipelined { |pipeline| order.each { |queue| pipeline.call("LLEN", "queue:#{queue}") } }
      end
      order.zip(lengths).select { |queue, length| length > 0 || worker.unanswered?(queue) }.map(&:first)
    rescue RedisClient::CommandError
      order # one of them is not a list: read each by itself
    end

    # Blocks until a queue holds something, and leaves it as it was: BLMOVE of a
    # list's end onto itself, so the job has no second place where a crash could
    # leave it. One thread watches one queue; when it has found something, the next
    # thread takes its place.
    def watch(order)
      queue = choose_to_watch(order)
      return if queue.nil?

      seconds = (@watched.size == order.size) ? TIMEOUT : BRIEF
      key = "queue:#{queue}"
      shunning(queue) { redis { |conn| conn.blocking_call(seconds, "BLMOVE", key, key, "RIGHT", "RIGHT", seconds) } }
    ensure
      stop_watching(queue) if queue
    end

    # A queue that no thread watches; nil, after a wait, if there is none.
    def choose_to_watch(order)
      @lock.synchronize do
        free = order.find { |name| !@watched.include?(name) }
        if free.nil?
          @left.wait(@lock, TIMEOUT)
        else
          @watched << free
        end
        free
      end
    end

    def stop_watching(queue)
      @lock.synchronize do
        @watched.delete(queue)
        @left.signal
      end
    end
  end
end

module SidekiqFlow::Companion
  # Deregisters the process when the Manager of a capsule stops. Sidekiq 7 then
  # calls bulk_requeue with an empty list, and Sidekiq 8.1.3 and later do not call
  # the fetcher at all.
  module SignOff
    def stop(*)
      super
    ensure
      capsule.fetcher.sign_off if capsule.fetcher.is_a?(Fetch)
    end
  end
end

module SidekiqFlow::Companion
  # What the record of a run holds of one step (_record.lua). The steps of runs that were
  # started by the plain gem have no numbers.
  class StepRecord
    # The option of a step that holds its number.
    NUMBER = "swf_step"

    # The highest number: a record has one bit for each.
    MOST = 10_000_000

    # The number of the first step whose times are not recorded.
    MOST_TIMED = 1000

    PARTS = ["", ":times", ":done", ":failed", ":added"].freeze

    def initialize(job)
      @job = job
      @number = job[NUMBER] if job[NUMBER].is_a?(Integer) && job[NUMBER].between?(1, MOST) && Run.id(job).is_a?(String)
    end

    # The key of the record, or "". A step without a number may end its run, too.
    def key
      (Run.id(@job).is_a?(String) && Run.step?(@job)) ? "swf:flow:#{Run.id(@job)}" : ""
    end

    # All keys of the record of a step that has a number.
    def keys
      @number ? PARTS.map { |part| "#{key}#{part}" } : []
    end

    # The number as an argument of fail.lua, or the jid of a step that has none; "" for a job
    # that is not a step.
    def number
      @number || (key.empty? ? "" : by_jid)
    end

    # The number and the times, as advance.lua reads them. For a step without a number "",
    # or its jid if it had failed.
    def text
      # Its first failure leaves 0; the Web UI subtracts one when it retries a dead job.
      mark = @job.key?("retry_count") ? "!" : ""
      return (mark.empty? || key.empty?) ? "" : "#{mark}#{by_jid}" unless @number

      failures = @job["retry_count"].is_a?(Integer) ? @job["retry_count"] + 1 : 0
      return "#{mark}#{@number}" if @number >= MOST_TIMED

      now = Time.now.to_f
      format("%s%d %.3f %.3f %d %s", mark, @number, Execution.current&.began || now, now, failures, Member.identity)
    end

    # What the record holds of a death, as JSON. +now+: epoch seconds.
    def failure(now)
      return "" if key.empty?

      JSON.generate("jid" => @job["jid"], "class" => @job["wrapped"] || @job["class"], "queue" => @job["queue"],
        "error_class" => @job["error_class"], "error_message" => @job["error_message"].to_s[0, 500].scrub,
        "at" => now)
    end

    private

    def by_jid
      "jid:#{@job["jid"]}"
    end
  end
end

module SidekiqFlow::Companion
  # A job in flight; what Sidekiq calls a unit of work. It leaves flight once: by an
  # advance, a failure, a requeue or, if none of them came first, by Sidekiq's
  # acknowledge.
  class Unit
    FETCHED = :flow_fetched
    CURRENT = :flow_current

    class << self
      # The unit that the fetcher gave to this thread, until its middleware takes it.
      def fetched=(unit)
        Thread.current[FETCHED] = unit
      end

      def fetched
        Thread.current[FETCHED]
      end

      def take
        Thread.current[FETCHED].tap { Thread.current[FETCHED] = nil }
      end

      # The unit whose middleware runs on this thread; nil for a job that runs inline
      # in another one.
      def current
        Thread.current[CURRENT]
      end

      def with(unit)
        before = current
        Thread.current[CURRENT] = unit
        yield
      ensure
        Thread.current[CURRENT] = before
      end
    end

    # +queue_name+ and +job+ (the payload, as it stood in Redis) are read by
    # Sidekiq's Processor.
    attr_reader :queue_name, :job, :receipt, :member, :thread

    # The job's Completion, once it was done.
    attr_accessor :completion

    def initialize(fetcher, queue, member, receipt, payload)
      @fetcher = fetcher
      @queue_name = queue
      @member = member
      @receipt = receipt
      @job = Payload.unwrapped(payload)
      @thread = Thread.current
      @settled = false
      worker.hold(self)
    end

    def queue
      "queue:#{queue_name}"
    end

    def key
      Member.in_flight(@member)
    end

    def config
      @fetcher.config
    end

    def retrier
      @fetcher.retrier
    end

    # Called by Sidekiq at the end of each job, however it ended. Most have left
    # flight by then.
    #
    # The others: plain jobs that are done, jobs that are discarded, and steps that
    # were pushed again. Such a step is in its queue before it leaves flight: a crash
    # in between runs it twice, under the same jid, which a barrier counts once.
    def acknowledge
      settle { |conn| conn.call("HDEL", key, receipt) }
    end

    # Puts the job back to the end of the queue that is taken from next.
    def requeue
      settle { |conn| Scripts.run(conn, "requeue", [key, queue], [receipt]) }
    end

    # The same, without waiting for a server that is unavailable.
    def requeue_now
      return if @settled

      config.redis { |conn| Scripts.run(conn, "requeue", [key, queue], [receipt]) }
      settled
    rescue RedisClient::CommandError => error
      raise if Trouble.passes?(error)

      leave(error)
    end

    def settled?
      @settled
    end

    # Runs advance.lua. Returns its outcome (see Replies.advance).
    def advance(keys, arguments)
      ended(Replies.advance(run("advance", keys, arguments)))
    end

    # Runs replace.lua. Returns its outcome (see Replies.replace).
    def replace_step(keys, arguments)
      ended(Replies.replace(run("replace", keys, arguments)))
    end

    # Parks the job, which has not run, since its run is paused. The keys that its run
    # needs live on for as long as it may wait.
    def park(job)
      needed, ttl = Lifetimes.needs(job)
      ttl += config[:dead_timeout_in_seconds].to_i
      keys = [key, "swf:flow:#{Run.id(job)}", queue, *needed]
      settle { |conn| Replies.park(Scripts.run(conn, "park", keys, [receipt, queue_name, ttl])) }
    end

    # Moves the job from flight to `retry` or `dead`. The barriers above it, and the
    # memory of its run, live on for as long as it may be tried again.
    def fail(set, score, payload)
      job = Payload.parse(payload) || {}
      replacement = Replacement.of(job, self) if set == "dead"
      return replace(score, job, replacement) if replacement

      now = Time.now.to_f
      dead_for = config[:dead_timeout_in_seconds]
      needed, ttl = Lifetimes.needs(job)
      ttl += ((set == "dead") ? dead_for : score.to_f - now).to_i
      step = StepRecord.new(job)
      keys = [key, set, step.key, *needed]
      arguments = [receipt, set, score, payload, (now - dead_for).to_s, config[:dead_max_jobs], ttl,
        *((set == "dead") ? [step.number, step.failure(now)] : ["", ""])]
      reply = Trouble.patiently(config.logger) { config.redis { |conn| Scripts.run(conn, "fail", keys, arguments) } }
      Replies.fail(reply)
      settled
    rescue Refused => error
      leave(error)
    end

    # Moves the job to `dead` at once, whatever its `retry` is; +tell+ calls the
    # death handlers.
    def bury(error, tell: true)
      job = Payload.parse(self.job)
      config.logger.error("Job #{job && job["jid"]} of queue #{queue_name} cannot continue, and goes to 'dead': " \
        "#{error.message}")
      self.fail("dead", Time.now.to_f.to_s, Payload.dead(self.job, error, queue_name))
      DeathHandlers.call(config, job, error) if tell && job && !error.is_a?(InvalidPayload)
    end

    private

    # Moves a step to `dead`, and pushes what takes its place, in one step.
    def replace(score, job, replacement)
      step = StepRecord.new(job)
      needed, = Lifetimes.needs(job)
      now = Time.now.to_f
      first = [receipt, "dead", score, replacement.payload, (now - config[:dead_timeout_in_seconds]).to_s,
        config[:dead_max_jobs], replacement.ttl, step.number, step.failure(now)]
      reply = :stage_lost
      while reply == :stage_lost
        keys, last = Trouble.patiently(config.logger) { replacement.writes(needed.size) }
        keys = [key, "dead", step.key, *needed, *keys]
        reply = Replies.fail(Trouble.patiently(config.logger) do
          config.redis { |conn| Scripts.run(conn, "fail", keys, [*first, *last]) }
        end)
      end
      settled
      replacement.pour
    rescue Refused => error
      leave(error)
    end

    def worker
      @fetcher.worker
    end

    def run(script, keys, arguments)
      config.redis { |conn| Scripts.run(conn, script, [key, *keys], [receipt, *arguments]) }
    end

    def ended(outcome)
      settled if %i[done gone cancelled].include?(outcome)
      config.logger.debug { "The job had left flight: it was sent twice, or recovered elsewhere" } if outcome == :gone
      outcome
    end

    def settle
      return if @settled

      Trouble.patiently(config.logger) { config.redis { |conn| yield conn } }
      settled
    rescue Refused => error
      leave(error)
    end

    # Leaves a job in flight that Redis can store nowhere else. It is not lost: it
    # goes back to its queue when this process ends.
    def leave(error)
      config.logger.error("Job of queue #{queue_name} with receipt #{receipt} stays in #{key}: #{error.message}")
      @settled = true
      worker.leave_in_flight(self)
    end

    def settled
      @settled = true
      worker.release(self)
    end
  end
end

module SidekiqFlow::Companion
  # A job that another fetcher took (Sidekiq Pro's super_fetch), or that runs
  # inline. It is put into flight for its advance.
  class BorrowedUnit
    attr_reader :config, :queue_name, :job

    def initialize(config, queue_name, job)
      @config = config
      @queue_name = queue_name
      @job = Sidekiq.dump_json(job)
      @key = "swf:borrowed:#{SecureRandom.hex(12)}"
      Trouble.patiently(config.logger) do
        config.redis do |conn|
          conn.multi do |transaction|
            transaction.call("HSET", @key, "1", @job)
            transaction.call("EXPIRE", @key, 3600)
          end
        end
      end
    end

    def advance(keys, arguments)
      Replies.advance(run("advance", keys, arguments))
    end

    def replace_step(keys, arguments)
      Replies.replace(run("replace", keys, arguments))
    end

    private

    def run(script, keys, arguments)
      config.redis { |conn| Scripts.run(conn, script, [@key, *keys], ["1", *arguments]) }
    end
  end
end

module SidekiqFlow::Companion
  # Applies Sidekiq's own rules for failed jobs. Only the write differs: one script
  # instead of ZADD and a later acknowledge.
  #
  # A step is never dropped: with `retry: false`, `dead: false` or `:discard` it
  # goes to `dead`, since its run waits for it.
  class Retry < Sidekiq::JobRetry
    # The failure of a job before its middleware: its class does not exist, or the
    # Rails reloader failed.
    def global(payload, queue)
      super
    rescue Sidekiq::JobRetry::Handled => handled
      unit = Unit.fetched
      unit.bury(handled.cause, tell: false) if unit && handled.cause && !unit.settled? && step?(payload)
      raise
    end

    # Sidekiq raises the error again for a job without retries, and for a failure
    # that it could not record.
    def local(job_instance, payload, queue)
      super
    rescue Sidekiq::JobRetry::Handled, Sidekiq::Shutdown
      raise
    rescue Exception => error # as Sidekiq does
      unit = Unit.current
      raise if unit.nil? || unit.settled? || !step?(payload)

      unit.bury(error)
      raise Sidekiq::JobRetry::Handled
    end

    private

    def process_retry(job_instance, job, queue, error)
      begin
        super
      rescue Sidekiq::JobRetry::Handled, Sidekiq::Shutdown
        raise
      rescue => broken
        raise if unit.nil?

        logger.error("Sidekiq could not record the failure of job #{job["jid"]}, and the job goes to 'dead': " \
          "#{broken.class}: #{broken.message}")
        return unit.bury(error)
      end
      keep_step(job, error) unless unit.nil? || unit.settled? || !Run.step?(job)
    end

    def keep_step(job, error)
      logger.error("Job #{job["jid"]} of run #{Run.label(job)} failed for good. It would be dropped, but it is a " \
        "step: it goes to 'dead': #{error.class}")
      unit.fail("dead", Time.now.to_f.to_s, Sidekiq.dump_json(job))
    end

    def step?(payload)
      job = Payload.parse(payload)
      job && Run.step?(job)
    end

    def unit
      Unit.current || Unit.fetched
    end

    def redis(&block)
      unit ? yield(FailureWriter.new(unit, config)) : super
    end
  end
end

module SidekiqFlow::Companion
  # Gives Sidekiq's Processor the companion's Retry, also for jobs that fail before
  # their middleware.
  module Processing
    def initialize(capsule, ...)
      super
      unless instance_variable_defined?(:@retrier)
        raise Unsupported, "Sidekiq #{Sidekiq::VERSION} keeps its JobRetry elsewhere than in Processor's @retrier, " \
          "which sidekiq-flow #{SidekiqFlow::VERSION} replaces. It was tested with #{Requirements::TESTED}."
      end
      @retrier = capsule.fetcher.retrier if capsule.fetcher.is_a?(Fetch)
    end
  end
end

module SidekiqFlow::Companion
  # Takes the place of the connection that JobRetry writes a failure to.
  class FailureWriter
    def initialize(unit, config)
      @unit = unit
      @config = config
    end

    def multi
      yield self
    end

    def zadd(set, score, payload)
      @unit.fail(set, score, payload)
    end

    # The script trims `dead`.
    def zremrangebyscore(*)
    end

    def zremrangebyrank(*)
    end

    # A Sidekiq that writes with other commands still writes, in two steps.
    def method_missing(name, *arguments, &block)
      @config.redis { |conn| conn.public_send(name, *arguments, &block) }
    end

    def respond_to_missing?(*)
      true
    end
  end
end

module SidekiqFlow::Companion
  # The cancelled and paused runs, as far as this process knows them: their steps do not
  # start.
  # It looks when a step starts, at most once in half a second.
  class CancelledRuns
    # Sorted set: run id by the time of its cancellation or pause.
    LIST = "swf:cancelled"

    # The states of a run whose steps do not start.
    HALTED = %w[cancelled paused].freeze

    # Seconds between two looks.
    INTERVAL = 0.5

    # The most runs that are remembered.
    MOST = 20_000

    def self.current
      @current ||= new
    end

    def initialize
      @lock = Mutex.new
      @known = {}
      @last = nil
      @looked = -Float::INFINITY
    end

    # "cancelled" or "paused" if a step must not start, since its run is; else nil. Logs
    # the first one of each cancelled run.
    def halts(job, config)
      run = Run.id(job)
      return if !run.is_a?(String) || Run.callback?(job)

      # A step that had failed may come out of `dead` long after.
      listed = listed?(run, config)
      return unless listed || job["retry_count"].is_a?(Integer)

      state(run, listed, config).tap { |halted| log(run, job, config) if halted == "cancelled" }
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      # A step runs also if Redis cannot be reached.
      config.logger.debug { "Cancelled runs could not be read: #{error.message}" }
      nil
    end

    private

    def listed?(run, config)
      @lock.synchronize do
        look(config) if now - @looked >= INTERVAL
        @known.key?(run)
      end
    end

    def look(config)
      @looked = now
      from = @last ? "(#{@last}" : "-inf"
      found = config.redis { |conn| conn.call("ZRANGEBYSCORE", LIST, from, "+inf", "WITHSCORES") }
      # Pairs, or with an older protocol one after the other.
      found.flatten.each_slice(2) do |run, score|
        @known[run] ||= false
        @last = score
      end
      @known.shift while @known.size > MOST
    end

    # What the record says; a later run may have the id of one that was cancelled.
    def state(run, listed, config)
      state = config.redis { |conn| conn.call("HGET", "swf:flow:#{run}", "state") }
      return listed ? "cancelled" : nil if state.nil?

      state if HALTED.include?(state)
    end

    def log(run, job, config)
      config.logger.info("Run #{Run.label(job)} was cancelled: its steps do not run") unless @known[run]
      @known[run] = true
    end

    def now
      ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
    end
  end
end

module SidekiqFlow::Companion
  # The outermost server middleware: settles the job (done, to be retried, dead) in
  # one step. Sidekiq's own signal for a settled job is the exception Handled.
  #
  # It acts after all other middleware has ended: the next steps must not start
  # before, say, a middleware that wraps the job in a transaction has committed.
  class Outcome
    include Sidekiq::ServerMiddleware

    def call(job_instance, job, queue)
      unit = Unit.take
      halted = CancelledRuns.current.halts(job, config)
      # Sidekiq takes it out of flight.
      return if halted == "cancelled"
      return unit.park(job) if halted && unit

      Unit.with(unit) do
        return yield if unit.nil?

        unit.retrier.local(job_instance, unit.job, queue) do
          refusing(unit) do
            Execution.of(job) do |execution|
              check_continuations(job)
              yield.tap { finish(unit, execution) }
            end
          end
        end
      end
    end

    private

    # Refuses a tree that cannot be started before the job runs.
    def check_continuations(job)
      Callback.stack(job).each { |callback| Tree.check(callback.remaining) unless callback.read_later? }
    end

    def finish(unit, execution)
      return unit.completion.advance if unit.completion
      raise execution.refusal if execution.refusal
      return if execution.pushed_again? || !Run.step?(execution.job)

      raise StepSkipped, "A middleware did not let the step run, so its run waits for it. " \
        "Find out which one, then retry the step."
    end

    # Any other error follows Sidekiq's rules for retries.
    def refusing(unit)
      yield
    rescue Refused => error
      unit.bury(error)
      raise Sidekiq::JobRetry::Handled
    end
  end
end

module SidekiqFlow::Companion
  # What a running step asks for; nothing is written before it ends (Python's twin is
  # wire/replace.py).
  class Changes
    attr_accessor :tree
    attr_reader :added

    def initialize
      @tree = nil
      @added = []
    end

    # What starts in the place of the step, as a tree in wire form; nil without.
    def node
      nodes = [*(@tree.nil? ? [] : [@tree]), *@added]
      return if nodes.empty?

      wires = nodes.map { |node| NewTree.read(node) }
      @added.empty? ? wires.first : {"__type__" => "group", "children" => wires}
    end
  end
end

module SidekiqFlow::Companion
  # The job that runs on this thread, and the events that were seen while it runs.
  class Execution
    CURRENT = :flow_execution

    # Fields that a job which is pushed again does not take over.
    OWN = %w[
      class wrapped args queue at created_at enqueued_at retry_count failed_at retried_at
      error_message error_class error_backtrace
    ].freeze

    class << self
      def current
        Thread.current[CURRENT]
      end

      # Yields the execution of a job: the current one if it is this job's.
      def of(job)
        before = current
        return yield(before) if before && before.job.equal?(job)

        begin
          yield(Thread.current[CURRENT] = new(job))
        ensure
          Thread.current[CURRENT] = before
        end
      end
    end

    # +began+: epoch seconds.
    attr_reader :job, :began

    # The error to bury the job with, although nothing was raised.
    attr_accessor :refusal

    def initialize(job)
      @job = job
      @began = Time.now.to_f
    end

    # What the step asks for (see CurrentRun).
    def changes
      @changes ||= Changes.new
    end

    def changes?
      !@changes.nil?
    end

    # Notes that the job was pushed once more, under its own id: the process that
    # performs it then advances the run.
    def pushed_again!
      @pushed_again = true
    end

    def pushed_again?
      @pushed_again
    end

    # Whether a job that is being pushed is this job again.
    def same?(item)
      item["jid"] == @job["jid"] || (!active_job_id.nil? && active_job_id == id_of(item))
    end

    # ActiveJob's own id, which stays the same when ActiveJob retries.
    def active_job_id
      id_of(@job)
    end

    # Makes a job that is being pushed the step that this job is.
    def continue_in(item)
      pushed_again!
      item.merge!(@job.reject { |key, _| OWN.include?(key) }) if Run.step?(@job)
    end

    private

    def id_of(job)
      return unless job["wrapped"] && job["args"].is_a?(Array)

      data = job["args"].first
      data["job_id"] if data.is_a?(Hash)
    end
  end
end

module SidekiqFlow::Companion
  # Client middleware. A step that is pushed again while it runs (by ActiveJob's
  # retry_on, or an interrupted iteration) stays the same step. And the barriers
  # above a pushed job outlive its retries: the gem creates them for a day, and a
  # first step may be delayed for longer.
  class Pushes
    include Sidekiq::ClientMiddleware

    PLANNING = :flow_planning
    PROLONGED = :flow_prolonged

    # Runs the pushes of a plan: its jobs are new, and its script makes the barriers.
    def self.planned
      before = Thread.current[PLANNING]
      Thread.current[PLANNING] = true
      yield
    ensure
      Thread.current[PLANNING] = before
    end

    def call(_job_class, job, _queue, redis_pool)
      return yield if Thread.current[PLANNING]

      execution = Execution.current
      execution.continue_in(job) if execution&.same?(job)
      prolong(job, redis_pool)
      yield
    end

    private

    # Extends the barriers once for the children of a group, which share them.
    def prolong(job, redis_pool)
      stack = job[Dialect.current.callbacks]
      return unless stack?(stack)

      callbacks = stack.map { |entry| Callback.new(*entry.first(3)) }
      wait = job["at"].is_a?(Numeric) ? [0, job["at"] - Time.now.to_f].max.ceil : 0
      ttl = [Lifetimes.barrier_ttl(nil, callbacks) + wait, Lifetimes::MAX_TTL].min
      top, done = Thread.current[PROLONGED]
      return if top == callbacks.last.barrier && done >= ttl

      redis_pool.with { |conn| Scripts.run(conn, "extend", ["", *callbacks.flat_map(&:keys)], [ttl, 0]) }
      Thread.current[PROLONGED] = [callbacks.last.barrier, ttl]
    rescue => error
      # Pushing goes on: the caller may have removed the job from a set already.
      Sidekiq.logger.warn("The TTLs of the barriers of job #{job["jid"]} could not be extended: " \
        "#{error.class}: #{error.message}")
    end

    def stack?(value)
      return false unless value.is_a?(Array) && value.any?

      value.all? { |entry| entry.is_a?(Array) && (entry[1].nil? || entry[1].is_a?(Hash)) }
    end
  end
end

module SidekiqFlow::Companion
  # Listens to ActiveJob: a job that ActiveJob retries or discards (retry_on,
  # discard_on) has succeeded as far as Sidekiq can see.
  module ActiveJobEvents
    EVENTS = /\A(enqueue_retry|retry_stopped|discard|perform)\.active_job\z/

    module_function

    def subscribe
      return if @subscribed || !defined?(ActiveSupport::Notifications)

      @subscribed = true
      ActiveSupport::Notifications.subscribe(EVENTS) do |name, _, _, _, payload|
        seen(name.delete_suffix(".active_job"), payload)
      end
    end

    def seen(event, payload)
      execution = Execution.current
      # It may be the event of another job, which runs inline.
      return unless execution && payload[:job]&.job_id == execution.active_job_id

      case event
      when "enqueue_retry" then execution.pushed_again!
      when "perform"
        execution.refusal ||= aborted if payload[:aborted]
      else
        execution.refusal = discarded(event, payload[:error])
      end
    end

    def aborted
      StepSkipped.new("A callback of ActiveJob aborted the step, so its run waits for it. Retry it.")
    end

    def discarded(event, error)
      StepDiscarded.new("ActiveJob gave the step up (#{event}) after #{error.class}: #{error&.message}. " \
        "Its run waits for it. Retry it when the cause is fixed.")
    end
  end
end

module SidekiqFlow::Companion
  # Makes the gem's extend_ttl!, which sets the TTL of the running job's barriers,
  # extend them only: no barrier expires earlier than before. It extends the stored
  # chains of the job's stack, too.
  module Prolongation
    def extend_ttl!(ttl: nil)
      execution = Execution.current
      return super if execution.nil? || Run.id(execution.job).nil?

      ttl = [Integer(ttl || configuration.barrier_ttl), Lifetimes::MAX_TTL].min
      barriers = Callback.stack(execution.job).flat_map(&:keys)
      chains = CallbackStorage.chains(execution.job[Dialect.current.callbacks])
      memory = Memory.key_for(execution.job)
      keys = memory.empty? ? ["", *barriers, *chains] : ["swf:keep:#{memory}", *barriers, *chains, memory]
      Sidekiq.redis { |conn| Scripts.run(conn, "extend", keys, [ttl, 1]) } > 0
    end
  end
end

module SidekiqFlow::Companion
  # Takes the place of the gem's middleware: keeps what the job returned, and plans
  # the next steps. It runs inside the application's own middleware, so a step is
  # pushed for the tenant, and in the locale, of the step before.
  #
  # One exception: when the last two jobs of a group end at the same time, neither
  # can know that it is the last. The next steps are then planned after the
  # middleware has ended, and get the context that the payload carries (Inherited).
  class Output
    include Sidekiq::ServerMiddleware

    def call(job_instance, job, queue)
      refuse_carrier(job, queue)
      refuse_other_dialect(job)
      dialect = Dialect.current
      return yield unless dialect.of?(job)

      Execution.of(job) do |execution|
        result = in_context_of_gem(job_instance, job, queue) { yield }
        complete(execution, queue, result) unless execution.pushed_again? || execution.refusal
        result
      end
    end

    private

    def complete(execution, queue, result)
      unit = Unit.current
      job = execution.job
      completion = StepReplacement.of(execution, unit || BorrowedUnit.new(config, queue, job), fields(job, result))
      completion.prepare
      unit ? unit.completion = completion : completion.advance
    end

    # Python's steps whose name is not a Ruby constant travel as the gem's no-op,
    # which would skip their work.
    def refuse_carrier(job, queue)
      return unless DIALECTS.any? { |dialect| dialect.noop_class == job["class"] } && job["wrapped"]

      raise SidekiqFlow::WrongQueue.for(job, queue)
    end

    def refuse_other_dialect(job)
      dialect = Dialect.current
      other = Dialect.other
      return unless other.of?(job) && !dialect.of?(job)

      raise OtherDialect, "The job is a step of the gem sidekiq-#{other.name} (#{other.run_id}), and this process " \
        "has sidekiq-#{dialect.name}: its run would stop here. Use the same gem in all Ruby processes, and in " \
        "Python WorkflowMiddleware(dialect=#{dialect.name.inspect}); until then, retry the job where its own " \
        "gem is."
    end

    # Runs the job inside the gem's own middleware, for typed jobs and extend_ttl!,
    # and leaves it by a throw before it would advance the run.
    def in_context_of_gem(job_instance, job, queue)
      middleware = Dialect.current.gem::Middleware.new
      middleware.config = config
      done = Object.new
      catch(done) { middleware.call(job_instance, job, queue) { throw done, yield } }
    end

    # [name, JSON, ...]. An error here is still a failure of the job.
    def fields(job, result)
      result = result.to_h if result.is_a?(Dialect.current.gem::Schema)
      return [] unless result.is_a?(Hash) && Memory.current && !Run.id(job).to_s.empty?

      namespace = job["memory_namespace"]
      prefix = (namespace.is_a?(String) && !namespace.empty?) ? "#{namespace}." : ""
      result.flat_map { |name, value| ["#{prefix}#{name}", Sidekiq.dump_json(value)] }
    end
  end
end

module SidekiqFlow::Companion
  # The most entries that a callback stack may have.
  MAX_ENTRIES = 1000

  UUID = /\A\h{8}(-\h{4}){3}-\h{12}\z/

  # One entry of the callback stack: [barrier id, what remains, propagate].
  Callback = Struct.new(:barrier, :remaining, :propagate) do
    # The callback stack of a job, the top last. Trees that another job will start may
    # be references.
    def self.stack(job)
      stored = job[Dialect.current.callbacks]
      return [] if stored.nil?

      entries = Dialect.current.gem.configuration.callback_storage.retrieve(stored)
      raise InvalidCallbacks, "The callback stack is not an array" unless entries.is_a?(Array)

      # Each entry is a barrier that one script reads while Redis does nothing else.
      too_many = entries.size > MAX_ENTRIES
      raise InvalidCallbacks, "The callback stack has #{entries.size} entries, more than #{MAX_ENTRIES}" if too_many

      # The gem here may have any storage; other workers may write references.
      entries = CallbackStorage.reader.retrieve_started(entries) if CallbackStorage.chains(entries).any?
      entries.map { |entry| read(entry) }
    end

    # Barrier ids become Redis keys, so only a UUID is accepted.
    def self.read(entry)
      barrier, remaining, propagate = entry
      readable = barrier.is_a?(String) && barrier.match?(UUID) && (remaining.nil? || remaining.is_a?(Hash)) &&
        entry.size == 3 && [true, false].include?(propagate)
      raise InvalidCallbacks, "The callback stack cannot be read: #{entry.inspect[0, 200]}" unless readable

      new(barrier, remaining, propagate)
    end

    # Whether it has no tree, or a reference to a tree that another job will start.
    def read_later?
      remaining.nil? || remaining["__type__"] == "reference"
    end

    # The counter, the marker of the release, and the set of units counted.
    def keys
      [barrier, "#{barrier}_ran", "#{barrier}:u"]
    end

    # What the advance does when the barrier is down: "f" fires a continuation, "n"
    # goes on with the next callback below, "s" stops.
    def kind
      # An empty continuation completes at once.
      return Tree.completes_at_once?(remaining) ? "n" : "f" if remaining

      propagate ? "n" : "s"
    end
  end
end

module SidekiqFlow::Companion
  # Stores the rest of long chains once, in Redis; payloads refer to it. Each step of
  # a long chain then costs the same, however many steps follow. It works with the
  # gem alone, too:
  #
  #   Sidekiq::Workflow.configure do |cfg|
  #     cfg.callback_storage = SidekiqFlow::CallbackStorage.new
  #   end
  #
  # Every Ruby worker must have it before Python's RedisCallbackStorage is in use.
  # Keys and values are those of Python (see wire/references.py), apart from the
  # order of a job's keys.
  class CallbackStorage
    # Chains that a thread remembers: the next one to store is mostly the rest of one
    # of them.
    RECENT = 8

    # Seconds by which a stored chain outlives the barriers that lead to it.
    MARGIN = 86_400

    # Seconds between two extensions of a chain's TTL by one process.
    EXTEND_EVERY = 3600

    # Chains whose last extension a process remembers.
    EXTENDED = 10_000

    # JSON bytes of a chain besides its children.
    FRAME = 35

    SHA = /\A[0-9a-f]{64}\z/

    # Steps, and the reference to the rest of the chain from each of them.
    Chain = Struct.new(:children, :references) do
      def rest_from(sha)
        index = references.index { |reference| reference["sha"] == sha }
        {"__type__" => "chain", "children" => children.drop(index)} if index
      end

      # The reference to the last steps of this chain.
      def reference_to(steps)
        from = children.size - steps.size
        references[from] if from >= 0 && (steps.equal?(children) || children.drop(from) == steps)
      end
    end

    class << self
      # For references that the gem's own storage has left in a stack.
      def reader
        @reader ||= new
      end

      # The Redis keys that a stored stack refers to.
      def chains(stored)
        return [] unless stored.is_a?(Array)

        stored.filter_map do |_, remaining|
          "swf:callbacks:#{remaining["chain"]}" if remaining.is_a?(Hash) && remaining["__type__"] == "reference"
        end
      end
    end

    # min_bytes  the JSON size from which the rest of a chain is stored; a
    #            shorter one travels in the payload
    def initialize(min_bytes: 2048)
      @min_bytes = min_bytes
      @extended = {}
    end

    # Returns the form of a stack that a payload carries.
    def store(callbacks)
      callbacks.map do |barrier, remaining, propagate|
        [barrier, remaining && shorten(remaining, callbacks), propagate]
      end
    end

    # Returns the stack, with complete trees, for the form that a payload carries.
    def retrieve(stored)
      return stored unless stored.is_a?(Array)

      stored.map do |entry|
        barrier, remaining, propagate = entry
        reference?(remaining) ? [barrier, whole(remaining), propagate] : entry
      end
    end

    # As retrieve, for a job that may start one tree of its stack: the first one from the
    # top that has jobs. The references below it are passed on as they are.
    def retrieve_started(stored)
      started = stored.rindex { |_, remaining| reference?(remaining) || Tree.job?(remaining) } || 0
      stored.each { |_, remaining| keep(remaining) if reference?(remaining) }
      stored[0...started] + retrieve(stored[started..])
    end

    private

    def shorten(remaining, callbacks)
      return remaining unless remaining["__type__"] == "chain" && !Tree.completes_at_once?(remaining)

      children = remaining["children"]
      known = find_recent { |chain| chain.reference_to(children) }
      # It may have expired: then it is stored again.
      return known if known && exists?(known)

      json = children.map { |child| JSON.generate(child) }
      return remaining if json.sum { |text| text.bytesize + 1 } + FRAME < @min_bytes

      write(children, json, callbacks)
    end

    def exists?(reference)
      redis { |conn| conn.call("EXISTS", "swf:callbacks:#{reference["chain"]}") } == 1
    end

    def write(children, json, callbacks)
      # Steps at the end that have nothing to run are left out.
      last = children.rindex { |child| !Tree.completes_at_once?(child) }
      values, shas = hashed(json[0..last])
      delay = children.sum { |child| Tree.total_delay(child) }
      references = shas.each_with_index.map { |sha, index| reference(shas.first, index, sha, delay) }
      remember(Chain.new(children, references)) if last == children.size - 1
      ttl = Lifetimes.barrier_ttl(nil, callbacks.map { |entry| Callback.new(*entry) }) + MARGIN
      run("store_callbacks", references.first, ttl, *values)
      references.first
    end

    # The values of a chain's hash, and the SHA-256 of each: a value begins with the
    # SHA-256 of the next.
    def hashed(json)
      shas = [""]
      values = json.reverse.map do |text|
        value = "#{shas.first}:#{text}"
        shas.unshift(Digest::SHA256.hexdigest(value))
        value
      end
      [values.reverse, shas[0..-2]]
    end

    def reference?(remaining)
      remaining.is_a?(Hash) && remaining["__type__"] == "reference"
    end

    # Extends the TTL of a chain, which need not be read for that.
    def keep(reference)
      unless readable?(reference)
        raise InvalidCallbacks, "The callback stack cannot be read: #{reference.inspect[0, 200]}"
      end

      extend_ttl(reference)
    end

    def whole(reference)
      keep(reference)
      find_recent { |chain| chain.rest_from(reference["sha"]) } || read(reference)
    end

    def readable?(reference)
      chain, sha, at = reference.values_at("chain", "sha", "at")
      [chain, sha].all?(SHA) && at.is_a?(Integer) && at.between?(0, 2**53) && Tree.delay?(reference.fetch("delay", 0))
    end

    def read(reference)
      values = run("read_callbacks", reference, ttl(reference), reference["at"], 1_000_000_000, 1 << 40)
      references = []
      children = []
      following = reference
      values.each do |value|
        check_value(value, following)
        references << following
        sha, text = value.split(":", 2)
        children << stored_child(text, following)
        following = reference(following["chain"], following["at"] + 1, sha, reference.fetch("delay", 0))
      end
      unless following["sha"] == ""
        raise CallbacksMissing, "The Redis key \"swf:callbacks:#{reference["chain"]}\" has no step " \
          "#{following["at"]}, so the run cannot continue from here. It expired, or it was deleted."
      end
      remember(Chain.new(children, references))
      {"__type__" => "chain", "children" => children}
    end

    def check_value(value, reference)
      return if Digest::SHA256.hexdigest(value) == reference["sha"]

      raise CallbacksMissing, "Step #{reference["at"]} of the stored chain #{reference["chain"]} is not what was " \
        "stored there."
    end

    def stored_child(text, reference)
      JSON.parse(text.to_s)
    rescue JSON::JSONError, EncodingError
      raise InvalidNode, "Step #{reference["at"]} of the stored chain #{reference["chain"]} is not JSON: " \
        "#{text.inspect[0, 200]}"
    end

    # Extends the TTL of a chain whose run moves.
    def extend_ttl(reference)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      chain = reference["chain"]
      return if @extended[chain] && now - @extended[chain] < EXTEND_EVERY

      run("read_callbacks", reference, ttl(reference), 0, 0, 0)
      @extended = {} if @extended.size > EXTENDED
      @extended[chain] = now
    end

    def ttl(reference)
      Lifetimes::RETRY_HORIZON + (reference.fetch("delay", 0) / 1000.0).to_i + 1 + MARGIN
    end

    def reference(chain, at, sha, delay)
      found = {"__type__" => "reference", "chain" => chain, "at" => at, "sha" => sha}
      found["delay"] = ((delay == delay.to_i) ? delay.to_i : delay) unless delay.zero?
      found
    end

    def run(script, reference, *arguments)
      redis { |conn| Scripts.run(conn, script, ["swf:callbacks:#{reference["chain"]}"], arguments) }
    end

    # A worker waits until the server answers; in other processes, the application
    # decides what to do about an error.
    def redis(&block)
      return Sidekiq.redis(&block) if Unit.current.nil?

      Trouble.patiently(Sidekiq.logger) { Sidekiq.redis(&block) }
    end

    def find_recent
      recent.each_with_index do |chain, index|
        found = yield chain
        next if found.nil?

        recent.unshift(recent.delete_at(index))
        return found
      end
      nil
    end

    def recent
      Thread.current[:flow_recent_chains] ||= []
    end

    def remember(chain)
      recent.unshift(chain)
      recent.pop if recent.size > RECENT
    end
  end
end

module SidekiqFlow::Companion
  # Completes a job that is done: takes it out of flight, keeps its output, counts
  # down its barriers and pushes the next steps, in one step.
  #
  # A chain's continuation always fires, so its plan is sent at once. Of the jobs of
  # a group only the last one sends a plan. The script decides which one that is: it
  # names the callback that fires, and is sent again with the plan, unless that was
  # foreseen.
  class Completion
    def initialize(unit, job, fields)
      @unit = unit
      @job = job
      @fields = fields
      @stack = Callback.stack(job)
      @top_down = @stack.reverse
      @kinds = @top_down.map(&:kind)
      @planned = 0
    end

    # Plans the next steps as far as they can be foreseen, and writes nothing.
    def prepare
      plan(firing)
    end

    def advance
      return if Run.callback?(@job) || (@stack.empty? && memory_key.empty? && step.key.empty?)

      loop do
        outcome = Trouble.patiently(@unit.config.logger) { send_script }
        case outcome
        when :done, :gone then return pour
        when :cancelled then return
        when Replies::NeedsPlan then plan(outcome.callback)
        when :stage_lost then next # the plan stages it again
        end
      end
    end

    private

    def run_id
      Run.id(@job)
    end

    # The step has left flight: if Redis is unavailable now, the next heartbeat of any
    # process pours the rest of the fan-out.
    def pour
      return unless @plan&.fanout?

      @unit.config.redis { |conn| Fanouts.pour_all(conn, @unit.config.logger) }
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.log(@unit.config.logger, error)
    end

    # Plans for the callback of that number (1 is the top, 0 none).
    def plan(number)
      @planned = number
      @plan = nil
      return if number.zero?

      @plan = Plan.new(@top_down[number - 1].remaining, @stack[0...-number],
        run_id: run_id, finished: @job, queue: @unit.queue_name, config: @unit.config)
    end

    # The number of the callback that fires when this job is done. It only reads, so
    # it may be wrong by the time that the script runs.
    def firing
      return 1 if @kinds.first == "f"
      return 0 unless @kinds.include?("f")

      counted = unit_id
      look.each_with_index do |(value, marker, units), index|
        return 0 if value.nil? || marker.to_i != -1 || units.include?(counted) || value.to_i > 1
        return index + 1 if @kinds[index] == "f"
        return 0 if @kinds[index] == "s"

        counted = @top_down[index].barrier
      end
      0
    rescue Refused # a key of another type: the script will say so
      0
    end

    # [value, marker, units counted that may be this job's] of each callback.
    def look
      units = [unit_id, *@top_down.map(&:barrier)]
      replies = Trouble.patiently(@unit.config.logger) do
        @unit.config.redis { |conn| conn.pipelined { |pipeline| read_barriers(pipeline, units) } }
      end
      replies.each_slice(3).zip(units).map do |(value, marker, counted), unit|
        [value, marker, (counted.to_i == 1) ? [unit] : []]
      end
    end

    def read_barriers(pipeline, units)
      @top_down.zip(units) do |callback, unit|
        barrier, ran, set = callback.keys
        pipeline.call("GET", barrier)
        pipeline.call("GET", ran)
        pipeline.call("SISMEMBER", set, unit)
      end
    end

    def send_script
      plan_keys, plan_arguments = @plan ? @plan.writes : [[], []]
      memory_ttl = Memory.current&.ttl || 0
      keys = [memory_key, step.key, *@top_down.map(&:barrier), *plan_keys]
      ttl = Lifetimes.barrier_ttl(nil, @stack)
      # The next job is pushed: Sidekiq's processors fetch their jobs themselves.
      keep = ""
      arguments = [unit_id, ttl, memory_ttl, keep, step.text, @fields.size / 2, *@fields, @kinds.join]
      @unit.advance(keys, [*arguments, @planned, *plan_arguments])
    end

    # What the record of the run holds of this step.
    def step
      @step ||= StepRecord.new(@job)
    end

    # Each step extends its TTL, also a step that writes nothing there.
    def memory_key
      Memory.key_for(@job)
    end

    # The id that the barriers count: the jid.
    def unit_id
      Payload.jid(@job, @unit.job)
    end
  end
end

module SidekiqFlow::Companion
  # Reads workflow trees: the nodes that a callback stack carries.
  module Tree
    MAX_DEPTH = 100

    # Milliseconds: 31,000 years. Redis cannot count with larger numbers.
    MAX_DELAY = 10**15

    # The option of a carrier, for a worker in Python, that holds a group which needs some of its members.
    GROUP = "swf_group"

    NAME = ->(value) { value.is_a?(String) && value.length.between?(1, 255) }
    SECONDS = ->(value) { value.is_a?(Numeric) && value.abs <= MAX_DELAY / 1000 }

    # Fields that a push reads, or the failure of the pushed job. They may be null.
    READ_BY_PUSH = {
      "jid" => NAME,
      "retry" => ->(value) { value == true || value == false || value.is_a?(Integer) },
      "retry_queue" => NAME,
      "retry_for" => SECONDS,
      "tags" => ->(value) { value.is_a?(Array) },
      "wrapped" => NAME,
      "memory_namespace" => ->(value) { value.is_a?(String) }
    }.freeze

    class << self
      # Raises InvalidNode for a tree that cannot be started. Called before the step
      # runs, since its work would be done in vain.
      def check(node, depth = 0)
        raise InvalidNode, "The workflow is nested too deep" if depth > MAX_DEPTH

        case node.is_a?(Hash) && node["__type__"]
        when "job" then check_job(node, depth)
        when "with_delay"
          raise InvalidNode, "Invalid delay: #{shown(node["delay"])}" unless delay?(node["delay"])

          check(node["task"], depth + 1)
        when "chain", "group" then children(node).each { |child| check(child, depth + 1) }
        else raise InvalidNode, "Invalid node of a workflow tree: #{shown(node)}"
        end
      end

      def delay?(value)
        value.is_a?(Numeric) && value.abs <= MAX_DELAY
      end

      def completes_at_once?(node)
        case node["__type__"]
        when "job", "reference" then false
        when "with_delay" then node["delay"].zero? && completes_at_once?(node["task"])
        else children(node).all? { |child| completes_at_once?(child) }
        end
      end

      # Whether a node, valid or not, has a job in it.
      def job?(node)
        return false unless node.is_a?(Hash)

        node["__type__"] == "job" || [*node["children"], node["task"]].any? { |child| job?(child) }
      end

      def children(node)
        found = node["children"]
        return found if %w[chain group].include?(node["__type__"]) && found.is_a?(Array)

        raise InvalidNode, "Invalid node of a workflow tree: #{shown(node)}"
      end

      # The shortest time that a tree waits, in milliseconds.
      def total_delay(node)
        case node["__type__"]
        when "job" then delay_of_job(node)
        when "reference" then node.fetch("delay", 0)
        when "with_delay" then [0, node["delay"]].max + total_delay(node["task"])
        when "chain" then children(node).sum { |child| total_delay(child) }
        else children(node).map { |child| total_delay(child) }.max || 0
        end
      end

      # Yields the jobs of a tree, valid or not, in order; those of a fallback come after its
      # step.
      def jobs(node, &block)
        yield node if node["__type__"] == "job"
        [*node["children"], node["task"], node[Replacement::POLICY]].grep(Hash) { |part| jobs(part, &block) }
      end

      # How many jobs a tree has, without those of fallbacks.
      def count(node)
        return 1 if node["__type__"] == "job" && !node[GROUP]

        [*node["children"], node["task"], node[GROUP]].compact.sum { |child| count(child) }
      end

      private

      def check_job(node, depth)
        name, args = node.values_at("class", "args")
        queue = node.fetch("queue", "-")
        at = node.fetch("at", 0)
        raise InvalidNode, "A job needs the name of a class, not #{shown(name)}" unless NAME.call(name)
        raise InvalidNode, "The args of #{name} are not an array: #{shown(args)}" unless args.is_a?(Array)
        raise InvalidNode, "The queue of #{name} is not a name: #{shown(queue)}" unless NAME.call(queue)
        raise InvalidNode, "The at of #{name} is not a time: #{shown(at)}" unless SECONDS.call(at)

        field, = READ_BY_PUSH.find { |key, readable| !node[key].nil? && !readable.call(node[key]) }
        raise InvalidNode, "The #{field} of #{name} cannot be read: #{shown(node[field])}" if field

        policy = node[Replacement::POLICY]
        check(policy, depth + 1) unless policy.nil? || policy == Replacement::COUNTS_AS_DONE
        check(node[GROUP], depth + 1) if node.key?(GROUP)
      end

      def delay_of_job(node)
        at = node["at"]
        inside = node[GROUP] || node[Replacement::POLICY]
        wait = at.is_a?(Numeric) ? [0, (at - Time.now.to_f) * 1000].max : 0
        inside.is_a?(Hash) ? wait + total_delay(inside) : wait
      end

      def shown(value)
        value.inspect[0, 200]
      end
    end
  end
end

module SidekiqFlow::Companion
  # Everything that starting a node writes (Python's twin is workflow/plan.py):
  #
  # * a job is pushed with the stack, to `schedule` if it is delayed;
  # * a chain makes a barrier of 1 for the rest, and starts its first child;
  # * a group makes a barrier of its size, and starts every child;
  # * an empty node completes at once; delayed, it becomes a NoopWorker job.
  #
  # A step whose class is not a Ruby constant belongs to the other language: it is
  # pushed as it stands in the tree, with Sidekiq's defaults for what is missing.
  class Plan
    include Sidekiq::JobUtil

    # A plan with more jobs or barriers, or with more bytes, is staged first, so
    # that no single script holds Redis up for long.
    MAX_INLINE = 1000
    MAX_BYTES_INLINE = 1024 * 1024

    CONSTANT = /\A[A-Z]\w*(::[A-Z]\w*)*\z/

    # The Ruby job class of that name, for its sidekiq_options; nil if there is none.
    def self.class_of(name)
      return nil unless name.match?(CONSTANT) && Object.const_defined?(name)

      found = Object.const_get(name)
      found if found.is_a?(Class) && found.respond_to?(:get_sidekiq_options)
    rescue TypeError # A::B, and A is not a module
      nil
    end

    def initialize(node, stack, run_id:, finished:, queue:, config:)
      @run_id = run_id
      @finished = finished
      @queue = queue
      @config = config
      @now = Time.now.to_f
      @ttl = Lifetimes.barrier_ttl(node, stack)
      @dialect = Dialect.current
      @inherited = Inherited.from(finished)
      # The tag by which Sidekiq's Web UI finds a run's jobs.
      @tags = Array(finished["tags"]) & ["wf:#{run_id.to_s[0, 8]}"]
      @barriers = {}
      @pushes = Hash.new { |queues, name| queues[name] = [] }
      @scheduled = []
      @jids = Set.new
      @completes = start(node, stack, 0)
    end

    # Whether the node has no job to run: what comes after it is due now.
    def completes?
      @completes
    end

    # Makes the barrier of one unit, of a callback below all jobs of the plan.
    def add_barrier(id)
      @barriers[id] = [1, -1]
    end

    # [keys, arguments] as advance.lua reads a plan. A large plan is staged now.
    def writes
      return staged if fanout?

      keys = [*@barriers.keys, *@pushes.keys.map { |queue| "queue:#{queue}" }]
      arguments = [@barriers.size, *barriers.flat_map { |_, ttl, value, _| [ttl, value] },
        @pushes.size, *@pushes.values.flat_map { |jobs| [jobs.size, *jobs] },
        @scheduled.size, *@scheduled.flatten]
      [keys, arguments]
    end

    # Whether it is too large for one script.
    def fanout?
      jobs = @pushes.sum { |_, pushed| pushed.size } + @scheduled.size
      # One job is one element, staged or not, so it is not staged for its size.
      [jobs, @barriers.size].max > MAX_INLINE || (jobs > 1 && bytes > MAX_BYTES_INLINE)
    end

    private

    # Starts a node. Returns true if it completes at once.
    def start(node, stack, delay)
      case node["__type__"]
      when "with_delay" then start(node["task"], stack, delay + node["delay"])
      when "job" then push(node, stack, delay)
      else
        children = Tree.children(node)
        if children.empty?
          delay.zero? || push(noop, stack, delay)
        elsif node["__type__"] == "group"
          start_group(children, stack, delay)
        else
          start_chain(children, stack, delay)
        end
      end
    end

    def start_chain(children, stack, delay)
      until children.empty?
        first, *rest = children
        return start(first, stack, delay) if rest.empty?

        barrier = make_barrier(1)
        remaining = Callback.new(barrier, {"__type__" => "chain", "children" => rest}, false)
        return false unless start(first, [*stack, remaining], delay)

        # It completed at once: the rest starts now, without the delay, which was
        # that of the first child.
        @barriers[barrier] = [0, 0]
        children = rest
        delay = 0
      end
      true
    end

    def start_group(children, stack, delay)
      barrier = make_barrier(children.size)
      below = [*stack, Callback.new(barrier, nil, true)]
      left = children.count { |child| !start(child, below, delay) }
      @barriers[barrier] = left.zero? ? [0, 0] : [left, -1]
      left.zero?
    end

    def make_barrier(value)
      SecureRandom.uuid.tap { |id| @barriers[id] = [value, -1] }
    end

    # Pushes as Sidekiq::Client#push does, but leaves the write to the script. Returns
    # false: a job does not complete at once.
    def push(node, stack, delay)
      add(prepared(node, stack, delay))
      false
    end

    # The payload of a job, after client middleware.
    def prepared(node, stack, delay)
      job_class = constant(node["class"]) || node["class"]
      item = normalized(item(node, job_class, stack, delay))
      item["tags"] = Array(item["tags"]) | @tags unless @tags.empty?
      payload = Pushes.planned do
        @config.client_middleware.invoke(job_class, item, item["queue"], @config.redis_pool) { item }
      end
      raise PushStopped, "A client middleware did not let #{node["class"]} be pushed" unless payload.is_a?(Hash)

      payload
    end

    # The options of the node itself come last: a tenant that was given to the step
    # is not overwritten.
    def item(node, job_class, stack, delay)
      item = @inherited.merge(node, "class" => job_class)
      item.delete("__type__")
      item[@dialect.run_id] = @run_id
      item[@dialect.callbacks] = stored(stack) unless stack.empty?
      item["at"] = @now + (delay / 1000.0) if delay > 0
      # An explicit id is kept, but only once: a barrier counts each id once.
      item.delete("jid") unless item["jid"].is_a?(String) && @jids.add?(item["jid"])
      item
    end

    def add(payload)
      at = payload.delete("at")
      if at
        @scheduled << [at.to_s, Sidekiq.dump_json(payload.reject { |key, _| key == "enqueued_at" })]
      else
        payload["enqueued_at"] = Payload.stamp(@now)
        @pushes[payload["queue"]] << Sidekiq.dump_json(payload)
      end
    end

    def normalized(item)
      normalize_item(item)
    rescue ArgumentError => error
      raise InvalidNode, error.message
    end

    def constant(name)
      raise InvalidNode, "A job needs the name of a class, not #{name.inspect}" unless name.is_a?(String)

      self.class.class_of(name)
    end

    # All children of a group share one stack: it is stored once.
    def stored(stack)
      unless stack.equal?(@stored_stack)
        @stored_stack = stack
        @stored = Dialect.current.gem.configuration.callback_storage.store(stack.map(&:to_a))
      end
      @stored
    end

    # The job of an empty node that is delayed.
    def noop
      {"class" => @dialect.noop_class, "args" => [], "retry" => 0, "queue" => noop_queue}
    end

    # A queue that this process consumes: `default`, as in the gem, else the queue of
    # the finished job.
    def noop_queue
      config = @config.respond_to?(:capsules) ? @config : @config.config # that of a capsule
      consumed = config.capsules.each_value.flat_map(&:queues)
      consumed.include?("default") ? "default" : @queue
    end

    def bytes
      @pushes.sum { |_, jobs| jobs.sum(&:bytesize) } + @scheduled.sum { |_, payload| payload.bytesize }
    end

    # [id, ttl, value, ran] of each.
    def barriers
      @barriers.map { |id, (value, ran)| [id, value.zero? ? Lifetimes::RELEASED_TTL : @ttl, value, ran] }
    end

    def staged
      elements = elements_to_stage
      id = @config.redis { |conn| Fanouts.stage(conn, elements) }
      queues = @scheduled.empty? ? @pushes.keys : [*@pushes.keys, ""]
      [[Fanouts.key(id), Fanouts::FANOUTS], [0, 0, 0, 1, id, elements.size, queues.size, *queues]]
    end

    # The elements as pour.lua describes them.
    def elements_to_stage
      [
        *barriers.map { |id, ttl, value, ran| "b#{ttl} #{value} #{ran} #{id}" },
        *@pushes.flat_map { |queue, jobs| ["q#{queue}", *jobs] },
        *@scheduled.map { |at, payload| "s#{at} #{payload}" }
      ]
    end
  end
end

module SidekiqFlow::Companion
  # What takes the place of a step that is dead: its fallback, or a job that does
  # nothing, with the callback stack of the step (Python's twin is
  # workflow/death_policy.py).
  class Replacement
    # The option of a step that says what happens at its death: "done", or a tree.
    POLICY = "swf_on_death"

    # The value with which a step counts as done.
    COUNTS_AS_DONE = "done"

    # The run id of a job in `dead` that has left its run.
    DIED_IN = "swf_died_in"

    # The fields that such a job had in its run, by name.
    DIED_AS = "swf_died_as"

    # The replacement of a job that goes to `dead`, or nil. If it cannot be planned,
    # the job keeps its policy: a Python process finds it in `dead`.
    def self.of(job, unit)
      return unless job[POLICY] && Run.id(job).is_a?(String)

      new(job, unit)
    rescue Refused => error
      unit.config.logger.error("Nothing takes the place of the dead step #{job["jid"]} yet: #{error.message}")
      nil
    end

    def initialize(job, unit)
      @job = job
      @stack = Callback.stack(job)
      @node = node(unit)
      Tree.check(@node)
      @plan = Plan.new(@node, @stack, run_id: Run.id(job), finished: job, queue: unit.queue_name, config: unit.config)
      @config = unit.config
    end

    # The job as it goes to `dead`: a retry of it by hand runs it alone.
    def payload
      of_run = [Dialect.current.callbacks, Dialect.current.run_id, POLICY, StepRecord::NUMBER]
      taken, kept = @job.partition { |key, _| of_run.include?(key) }.map(&:to_h)
      Sidekiq.dump_json(kept.merge(DIED_IN => Run.id(@job), DIED_AS => taken))
    end

    # Seconds that the keys of the run must live.
    def ttl
      Lifetimes.barrier_ttl(@node, @stack)
    end

    # The keys and arguments of fail.lua behind all others; +kept+: how many keys it
    # keeps alive.
    def writes(kept)
      keys, arguments = @plan.writes
      [keys, [kept, fallback? ? Tree.count(@node) : 0, *arguments]]
    end

    # Pushes the jobs of a large plan.
    def pour
      @config.redis { |conn| Fanouts.pour_all(conn, @config.logger) } if @plan.fanout?
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      # The next heartbeat of any process does it.
      Trouble.log(@config.logger, error)
    end

    private

    def fallback?
      @job[POLICY] != COUNTS_AS_DONE && !Tree.completes_at_once?(@job[POLICY])
    end

    def node(unit)
      policy = @job[POLICY]
      Tree.check(policy) unless policy == COUNTS_AS_DONE
      return policy if fallback?

      {
        "__type__" => "job", "class" => Dialect.current.noop_class, "args" => [], "jid" => @job["jid"],
        "queue" => unit.queue_name, "retry" => true, StepRecord::NUMBER => @job[StepRecord::NUMBER]
      }.compact
    end
  end
end

module SidekiqFlow::Companion
  # Arguments of steps as Python shows them (repr and reprlib), so that the records of
  # runs look alike, whichever language starts the run.
  module PythonText
    # The longest text of the arguments of a step, and of a string or a number in it.
    MOST = 60

    # The most elements of an array or a hash, and the deepest level.
    MOST_ELEMENTS = 10
    LEVELS = 4

    # The most digits of a number that Python writes.
    MOST_DIGITS = 4300

    # What Python escapes: not printable, and not a space.
    ESCAPED = /[\p{C}\p{Z}\\&&[^ ]]/
    SHORT_ESCAPES = {"\\" => "\\\\", "\n" => "\\n", "\r" => "\\r", "\t" => "\\t"}.freeze

    # Raised for a number with too many digits.
    class TooLong < StandardError; end

    class << self
      # The arguments of a step, as text of at most 60 characters.
      def shown(args)
        parts = []
        length = 0
        args.each do |value|
          break if length > MOST

          parts << text(value)
          length += parts.last.length + 2
        end
        whole = parts.join(", ")
        (whole.length <= MOST) ? whole : "#{whole[0, MOST - 3]}..."
      end

      private

      def text(value)
        return quoted(value[0, MOST + 1]) if value.is_a?(String) && value.length > MOST

        shortened(value, LEVELS)
      rescue TooLong
        "<#{{Integer => "int", Array => "list", Hash => "dict"}.fetch(value.class)}>"
      end

      def shortened(value, level)
        case value
        when String then short_string(value)
        when Integer then short_integer(value)
        when Float then float(value)
        when Array then short_array(value, level)
        when Hash then short_hash(value, level)
        when true then "True"
        when false then "False"
        else "None"
        end
      end

      def short_string(value)
        text = quoted(value[0, MOST])
        return text if text.length <= MOST

        ends_of(quoted(value[0, 28] + value[[value.length - 29, 0].max..]))
      end

      def short_integer(value)
        text = value.to_s
        raise TooLong if text.delete("-").length > MOST_DIGITS

        (text.length <= MOST) ? text : ends_of(text)
      end

      # Ruby begins to write exponents one digit before Python does.
      def float(value)
        text = value.to_s
        sign, whole, fraction = text.match(/\A(-?)(\d)\.(\d+)e\+15\z/)&.captures
        return text.sub(".0e", "e") if whole.nil?

        digits = (whole + fraction).ljust(17, "0")
        "#{sign}#{digits[0, 16]}.#{digits[16..]}"
      end

      def short_array(value, level)
        return "[...]" if level <= 0 && value.any?

        parts = value.first(MOST_ELEMENTS).map { |each| shortened(each, level - 1) }
        parts << "..." if value.size > MOST_ELEMENTS
        "[#{parts.join(", ")}]"
      end

      def short_hash(value, level)
        return "{}" if value.empty?
        return "{...}" if level <= 0

        parts = value.keys.sort.first(MOST_ELEMENTS).map do |key|
          "#{shortened(key, level - 1)}: #{shortened(value[key], level - 1)}"
        end
        parts << "..." if value.size > MOST_ELEMENTS
        "{#{parts.join(", ")}}"
      end

      def ends_of(text)
        "#{text[0, 28]}...#{text[-29..]}"
      end

      # As Python's repr of a string.
      def quoted(value)
        quote = (value.include?("'") && !value.include?('"')) ? '"' : "'"
        text = value.gsub(ESCAPED) { |char| escaped(char) }
        text = text.gsub("'") { "\\'" } if quote == "'"
        "#{quote}#{text}#{quote}"
      end

      def escaped(char)
        SHORT_ESCAPES.fetch(char) do
          code = char.ord
          next format("\\x%02x", code) if code < 0x100

          format((code < 0x10000) ? "\\u%04x" : "\\U%08x", code)
        end
      end
    end
  end
end

module SidekiqFlow::Companion
  # Writes the compact tree of a run, which its record keeps, of a tree in wire form
  # (Python's twin is wire/run_tree.py, which describes it and writes the same).
  class CompactTree
    # More equal siblings than this are folded into one node.
    MOST_ALIKE = 20

    # A tree with more steps that are not folded is written without arguments.
    MOST_WITH_ARGS = 1000

    NOOPS = DIALECTS.map(&:noop_class).freeze

    # Classes of jobs that +wrapped+ names.
    WRAPPERS = [*NOOPS, "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper", "Sidekiq::ActiveJob::Wrapper"].freeze

    # The beginning of the name of a step that waits for a signal.
    WAIT = "wait for "

    class << self
      # The compact tree, as JSON.
      #
      # node     a tree as JSON reads it
      # args     false leaves out the arguments of the steps. They are left out in large
      #          trees, too
      # is_ruby  job in wire form -> whether Ruby runs it; by default its class says so
      def dump(node, args: true, is_ruby: method(:ruby?))
        JSON.generate(new(is_ruby).tree(node, args))
      end

      # The tree that runs in the place of a step that is dead, or nil.
      def fallback_of(job)
        policy = job[Replacement::POLICY]
        policy if policy.is_a?(Hash)
      end

      # Whether Ruby runs a job: its class is neither the no-op, which carries a step of
      # Python, nor a stub that says RUNS_IN_PYTHON.
      def ruby?(job)
        name = job["class"]
        return false if NOOPS.include?(name) || !name.match?(Plan::CONSTANT)

        !(Object.const_defined?(name) && python?(Object.const_get(name)))
      rescue NameError, TypeError # A::B, and A is not a module
        true
      end

      private

      def python?(found)
        found.is_a?(Class) && found.const_defined?(:RUNS_IN_PYTHON)
      end
    end

    def initialize(is_ruby)
      @is_ruby = is_ruby
      # Equal nodes have the same shape, a number. Of each shape: what is written for it
      # without arguments; [shape, number] of its equal children; steps that are not folded.
      @nodes = []
      @runs = []
      @steps = []
      @shapes = {}
      # The shape of each node by its identity.
      @known = {}.compare_by_identity
    end

    def tree(node, args)
      shape = shape(node)
      (args && @steps[shape] <= MOST_WITH_ARGS) ? written(node) : @nodes[shape]
    end

    private

    def shape(node)
      @known[node] = new_shape(node)
    end

    def new_shape(node)
      case node["__type__"]
      when "job" then self.class.fallback_of(node) ? shape_of_catch(node) : shape_of_job(node)
      when "with_delay" then shape_of_delay(node)
      else shape_of_branch(node)
      end
    end

    def shape_of_job(job)
      may_fail = job[Replacement::POLICY] == Replacement::COUNTS_AS_DONE
      key = [:job, job["class"], job["queue"], job["wrapped"], may_fail]
      @shapes[key] ||= begin
        written = {"step" => name_of(job)}
        written["queue"] = job["queue"] unless job["queue"].to_s.empty?
        written["ruby"] = true if @is_ruby.call(job)
        written["may_fail"] = true if may_fail
        add(written, [], 1)
      end
    end

    def shape_of_catch(job)
      step = shape_of_job(job)
      fallback = shape(self.class.fallback_of(job))
      @shapes[[:catch, step, fallback]] ||= add({"catch" => @nodes[step], "fallback" => @nodes[fallback]},
        [[step, 1], [fallback, 1]], 1 + @steps[fallback])
    end

    def shape_of_delay(node)
      inner = shape(node["task"])
      # 5 and 5.0 are one delay.
      @shapes[[:delay, node["delay"].to_r, inner]] ||=
        add({"delay" => node["delay"], "node" => @nodes[inner]}, [[inner, 1]], @steps[inner])
    end

    def shape_of_branch(node)
      runs = node["children"].map { |child| shape(child) }.chunk_while(&:eql?).map { |alike| [alike[0], alike.size] }
      @shapes[[node["__type__"], *runs]] ||= begin
        steps = runs.sum { |shape, times| @steps[shape] * ((times <= MOST_ALIKE) ? times : 1) }
        children = runs.flat_map { |shape, times| folded(shape, times) || Array.new(times, @nodes[shape]) }
        add({node["__type__"] => children}, runs, steps)
      end
    end

    # [the node of equal siblings], if there are so many.
    def folded(shape, times)
      [{"times" => times, "node" => @nodes[shape]}] if times > MOST_ALIKE
    end

    def add(written, runs, steps)
      @nodes << written
      @runs << runs
      @steps << steps
      @nodes.size - 1
    end

    # A node with the arguments of the steps that are not folded.
    def written(node)
      case node["__type__"]
      when "job" then written_job(node)
      when "with_delay" then {"delay" => node["delay"], "node" => written(node["task"])}
      else {node["__type__"] => written_children(node)}
      end
    end

    def written_job(job)
      without = @nodes[@known[job]]
      fallback = self.class.fallback_of(job)
      return with_args(without, job) if fallback.nil?

      {"catch" => with_args(without["catch"], job), "fallback" => written(fallback)}
    end

    def with_args(step, job)
      text = job["wrapped"].to_s.start_with?(WAIT) ? "" : PythonText.shown(job["args"])
      text.empty? ? step : step.merge("args" => text)
    end

    def written_children(node)
      children = node["children"].each
      @runs[@known[node]].flat_map do |shape, times|
        alike = Array.new(times) { children.next }
        folded(shape, times) || alike.map { |child| written(child) }
      end
    end

    # Its class, or the actor or class that a wrapper carries.
    def name_of(job)
      wrapped = job["wrapped"]
      (wrapped.is_a?(String) && !wrapped.empty? && WRAPPERS.include?(job["class"])) ? wrapped : job["class"]
    end
  end
end

module SidekiqFlow::Companion
  # Numbers the steps of a tree in written order, depth first: their places in the
  # record of a run (Python's twin is wire/step_numbers.py, which leaves out the numbers
  # that a Python worker finds by itself).
  class StepNumbers
    # The number of the last step, and how many steps are in fallbacks.
    attr_reader :last, :skipped

    # Numbers the jobs of a tree, in place. +after+: the number of the step before it.
    def self.number(node, after: 0)
      new(after).tap { |numbers| numbers.number(node) }
    end

    def initialize(after)
      @last = after
      @skipped = 0
    end

    def number(node)
      case node["__type__"]
      when "job" then number_job(node)
      when "with_delay" then number(node["task"])
      else node["children"].each { |child| number(child) }
      end
    end

    private

    # The steps of a fallback come after its step.
    def number_job(job)
      job[StepRecord::NUMBER] = (@last += 1)
      fallback = CompactTree.fallback_of(job)
      return if fallback.nil?

      before = @last
      skipped = @skipped
      number(fallback)
      @skipped = skipped + @last - before
    end
  end
end

module SidekiqFlow::Companion
  # The gem's nodes in wire form, and back.
  module Wire
    class << self
      # A node of the gem in wire form: a copy, apart from the arguments and options of its
      # jobs.
      def of(node)
        copy(serializer.serialize_workflow(node))
      rescue TypeError, ArgumentError, NoMethodError => error
        raise InvalidWorkflow, "A workflow is made of #{Dialect.current.gem}::Job, Chain, Group and WithDelay, " \
          "not of #{node.inspect[0, 100]}: #{error.message[0, 200]}"
      end

      # The node of the gem.
      def node(wire)
        serializer.unserialize_workflow(wire)
      end

      # As another process reads it.
      def read(wire)
        JSON.parse(Sidekiq.dump_json(wire))
      rescue JSON::JSONError, EncodingError => error
        raise InvalidNode, "The workflow cannot be written as JSON: #{error.message[0, 200]}"
      end

      # A copy of a tree in wire form whose jobs name their queue, where their class knows it.
      def with_queues(wire)
        copy(wire).tap do |tree|
          Tree.jobs(tree) { |job| job["queue"] ||= queue_of(job["class"]) }
        end
      end

      private

      def serializer
        Dialect.current.gem::Serialize
      end

      def queue_of(name)
        Plan.class_of(name)&.get_sidekiq_options&.fetch("queue", nil)&.to_s
      end

      # The copy is changed: its jobs get numbers.
      def copy(wire)
        case wire["__type__"]
        when "job" then copy_of_job(wire)
        when "with_delay" then wire.merge("task" => copy(wire["task"]))
        else wire.merge("children" => wire["children"].map { |child| copy(child) })
        end
      end

      def copy_of_job(job)
        fallback = job[Replacement::POLICY]
        fallback.is_a?(Hash) ? job.merge(Replacement::POLICY => copy(fallback)) : job.dup
      end
    end
  end
end

module SidekiqFlow::Companion
  # What a run does besides its tree (Python's twin is workflow/run_options.py).
  class RunOptions
    # The longest name of a template, a tag or a key.
    MOST = 255

    # The options that name one job to call.
    CALLS = %i[on_failure on_complete].freeze

    attr_reader :tags, :template, :deadline, :unique_key

    # name -> job in wire form
    attr_reader :calls

    # deadline: seconds from the start, or a duration
    def initialize(tags: [], template: nil, deadline: nil, unique_key: nil, **calls)
      @tags = checked_tags(tags)
      @template = template && checked_name("template", template.to_s)
      @deadline = deadline && checked_deadline(deadline)
      @unique_key = unique_key && checked_name("unique_key", unique_key)
      @calls = calls.compact.to_h { |name, job| [name.to_s, checked_call(name, job)] }
    end

    # Whether a run is not what it should be without a record.
    def needed?
      !(@calls.empty? && @deadline.nil? && @unique_key.nil?)
    end

    # The fields of a record.
    def fields
      {
        "template" => @template, "tags" => @tags.empty? ? nil : JSON.generate(@tags), "deadline" => @deadline,
        "unique" => @unique_key
      }.compact
    end

    # The lists that the run is in, besides that of its state.
    def lists
      [*(["template:#{@template}"] if @template), *@tags.map { |tag| "tag:#{tag}" }]
    end

    private

    def checked_tags(tags)
      named = tags.is_a?(Array) ? tags.map { |tag| tag.is_a?(Symbol) ? tag.to_s : tag } : nil
      return named.uniq if named&.all? { |tag| tag.is_a?(String) && !tag.empty? }

      raise InvalidWorkflow, "tags takes an array of names: tags: [\"nightly\"], not #{tags.inspect[0, 100]}."
    end

    def checked_name(option, value)
      return value if value.is_a?(String) && value.length.between?(1, MOST)

      raise InvalidWorkflow, "#{option} takes a name of at most #{MOST} characters, not #{value.inspect[0, 50]}."
    end

    def checked_deadline(value)
      seconds = Lifetimes.seconds(value) || 0.0
      return seconds if seconds.positive? && seconds.finite?

      raise InvalidWorkflow, "deadline takes the seconds from the start, above 0, or a duration such as 2.hours, " \
        "not #{value.inspect[0, 50]}."
    end

    def checked_call(name, job)
      raise InvalidWorkflow, "There is no option #{name}." unless CALLS.include?(name)
      return Wire.of(job) if job.is_a?(Dialect.current.gem::Job)

      raise InvalidWorkflow, "#{name} takes one job: #{name}: #{Dialect.current.gem}::Job.new(...), " \
        "not #{job.inspect[0, 100]}."
    end
  end
end

module SidekiqFlow::Companion
  # The first jobs of a run, and the jobs that it may call.
  class StartPlan < Plan
    def initialize(tree, run_id:, config:)
      super(tree, [], run_id: run_id, finished: {}, queue: "default", config: config)
    end

    # The field of a record that holds a callback of the run: its payload up to the end of
    # the mapping that is its last argument, which is left open; and its queue
    # (_run_callback.lua).
    def callback(name, job, mapping)
      payload = prepared(job, [], 0)
      payload[Run::CALLBACK] = name.delete_prefix("on_")
      args = payload.delete("args")
      text = Sidekiq.dump_json(payload.merge("args" => [*args, mapping]))
      "#{text.delete_suffix("}]}")}\n#{payload["queue"]}"
    end

    private

    # As Sidekiq::Client does: complex arguments are refused, if the application says so.
    def add(payload)
      verify_json(payload)
      super
    end

    # A job without a queue must be of a class that exists, as in the gem.
    def item(node, job_class, stack, delay)
      Object.const_get(node["class"]) if job_class.is_a?(String) && !node.key?("queue")
      super
    end
  end
end

module SidekiqFlow::Companion
  # Starts a run as Python does (workflow/start.py): one script writes its marker, its
  # record, its barriers and its first jobs.
  class Start
    # Seconds that a record is kept after the end of its run.
    KEEP = 7 * 86_400

    class << self
      # false: runs get no records, and are started by the gem. Or a hash: +keep+, the
      # seconds that a record is kept after the end of its run; +args+, false to keep the
      # arguments of steps out of it.
      attr_writer :records

      def records
        @records.nil? ? {} : @records
      end

      # Whether a script can start runs here: not in tests without Redis, and not with
      # barriers of the application.
      def possible?
        records && !testing? && own_barriers?
      end

      # Whether jobs are not pushed to Redis.
      def testing?
        defined?(Sidekiq::Testing) && Sidekiq::Testing.enabled? ? true : false
      end

      private

      def own_barriers?
        settings = Dialect.current.gem.configuration
        !settings.respond_to?(:barrier_class) || settings.barrier_class.name.to_s.end_with?("::AtMostOnceBarrier")
      end
    end

    # tree: in wire form; it gets numbers
    def initialize(tree, run_id:, options:, config:)
      @run_id = run_id
      @options = options
      @config = config
      @numbers = StepNumbers.number(tree)
      @read = Wire.read(tree)
      Tree.check(@read)
      @ttl = Lifetimes.barrier_ttl(tree, [])
      @plan = StartPlan.new(tree, run_id: run_id, config: config)
    end

    # Starts the run. :done; :started, if a run of this id was started before; or
    # Replies::Taken, if another run has the unique key.
    def call
      outcome = send_script while outcome.nil? || outcome == :stage_lost
      pour if outcome == :done && @plan.fanout?
      outcome
    end

    private

    # If Redis is unavailable now, the next heartbeat of any worker does it.
    def pour
      @config.redis { |conn| Fanouts.pour_all(conn, Sidekiq.logger) }
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.log(Sidekiq.logger, error)
    end

    def send_script
      plan_keys, plan_arguments = @plan.writes
      keys = ["swf:run:#{@run_id}", "", "swf:flow:#{@run_id}", *plan_keys]
      arguments = [@ttl, 0, 0, *record, *plan_arguments]
      Replies.start(run_once(keys, arguments))
    rescue RedisClient::ConnectionError
      # It may have started the run: then the script says so.
      outcome = Replies.start(run_once(keys, arguments))
      outcome == :started ? :done : outcome
    end

    def run_once(keys, arguments)
      @config.redis { |conn| Scripts.run_once(conn, "start", keys, arguments) }
    end

    # As _new_record.lua reads it; a run that Ruby starts cannot be repeated.
    def record
      @record ||= begin
        fields = {"keep" => keep, **tree_fields, **@options.fields, **calls}
        [
          @plan.completes? ? "done" : "running", format("%.3f", Time.now.to_f), @ttl + keep, @numbers.last,
          fields.size, *fields.flatten, @options.lists.size, *@options.lists,
          @options.unique_key.to_s, @options.deadline.to_s, @options.needed? ? 1 : 0, ""
        ]
      end
    end

    def tree_fields
      compact = CompactTree.dump(Wire.with_queues(@read), args: self.class.records.fetch(:args, true))
      {"tree" => compact, "skipped" => (@numbers.skipped if @numbers.skipped.positive?)}.compact
    end

    def calls
      mapping = {"run_id" => @run_id, "template" => @options.template}
      @options.calls.to_h { |name, job| [name, @plan.callback(name, job, mapping)] }
    end

    def keep
      [self.class.records.fetch(:keep, KEEP).to_i, 1].max
    end
  end
end

module SidekiqFlow::Companion
  # The gem's ways to start a run, which write its record, too. A run that cannot get one
  # starts as the gem starts it.
  module Starts
    TEMPLATE = :flow_template

    class << self
      # Prepends to the classes of the gem, if it is loaded.
      def install
        return unless Dialect.loaded?

        gem = Dialect.current.gem
        return unless gem.const_defined?(:Workflow) && gem.const_defined?(:Serialize)

        gem::Workflow.prepend(OfWorkflow)
        gem::Templates.singleton_class.prepend(OfTemplates) if gem.const_defined?(:Templates)
      end

      # Yields, to start a run in the gem's way, unless it was started with a record.
      # +again+: whether a call before this one may have started it.
      def with_record(tree, run_id, config, again:)
        options = RunOptions.new(template: take_template)
        outcome = Start.new(tree, run_id: run_id, options: options, config: config).call
        # The gem starts a run of an id as often as it is told to.
        yield if outcome == :started && !again
      rescue Refused, InvalidWorkflow, RedisClient::CommandError => error
        raise if error.is_a?(PushStopped)

        Sidekiq.logger.warn("The run #{run_id} starts without a record: #{error.class}: #{error.message}")
        yield
      end

      def with_template(name)
        before = Thread.current[TEMPLATE]
        Thread.current[TEMPLATE] = name.to_s
        yield
      ensure
        Thread.current[TEMPLATE] = before
      end

      private

      # Of the first run that it starts.
      def take_template
        Thread.current[TEMPLATE].tap { Thread.current[TEMPLATE] = nil }
      end
    end

    # Workflow#run.
    module OfWorkflow
      def run(*arguments)
        return super if flow_continues? || !Start.possible?

        @run_id = arguments.first || @run_id || SecureRandom.uuid
        tree = flow_tree
        return super if tree.nil?

        config = @config || Sidekiq.default_configuration
        Starts.with_record(tree, @run_id, config, again: @flow_unanswered) do
          @flow_started = true
          return super(*arguments)
        end
        @flow_started = true
        @run_id
      rescue RedisClient::ConnectionError
        @flow_unanswered = true
        raise
      end

      private

      # Whether it is not the start of a run, but a continuation; or the second start.
      def flow_continues?
        @flow_started || !@completion_callbacks.nil? || Array(@callbacks).any?
      end

      # In wire form; nil if it cannot be written.
      def flow_tree
        tree = Wire.of(@workflow)
        @delay.to_f.positive? ? {"__type__" => "with_delay", "delay" => @delay, "task" => tree} : tree
      rescue InvalidWorkflow
        nil
      end
    end

    # Templates.run.
    module OfTemplates
      ruby2_keywords def run(name, *arguments)
        Starts.with_template(name) { super(name, *arguments) }
      end
    end
  end
end

module SidekiqFlow::Companion
  # A run that SidekiqFlow.run starts.
  class NamedRun
    # node: of the gem
    def initialize(node, run_id, options)
      @node = node
      @tree = Wire.of(node)
      @run_id = run_id
      @options = options
      raise InvalidWorkflow, "The id of a run is 1 to 255 characters, not #{run_id.inspect[0, 300]}." unless valid?
    end

    # Returns the id of the run, or of the run that has its unique key.
    def start
      return start_with_gem unless Start.possible?

      outcome = Start.new(@tree, run_id: @run_id, options: @options, config: Sidekiq.default_configuration).call
      return @run_id unless outcome.is_a?(Replies::Taken)

      Sidekiq.logger.info("The run #{outcome.run_id} has the unique key #{@options.unique_key.inspect} and lives, " \
        "so the run #{@run_id} is not started.")
      outcome.run_id
    rescue InvalidNode => error
      raise InvalidWorkflow, error.message
    rescue WrongType, RedisClient::CommandError => error
      raise if @options.needed?

      Sidekiq.logger.warn("The run #{@run_id} starts without a record: #{error.class}: #{error.message}")
      start_with_gem
    end

    private

    # In tests without Redis, what needs a record is left out.
    def start_with_gem
      if @options.needed? && !Start.testing?
        raise InvalidWorkflow, "Callbacks, deadline and unique_key need the records of runs, which are off, or " \
          "cannot be written with the barriers of this application."
      end
      Dialect.current.gem::Workflow.new(@node, run_id: @run_id).run
      @run_id
    end

    def valid?
      @run_id.length.between?(1, 255)
    end
  end
end

# What applications call.
module SidekiqFlow
  # Raised for a workflow that cannot be run.
  InvalidWorkflow = Companion::InvalidWorkflow

  class << self
    # Starts a run of a node of the gem, and returns its id.
    #
    #   node = Sidekiq::Workflow
    #   SidekiqFlow.run(
    #     node::Chain.new(node::Job.new(Fetch, 7), SidekiqFlow.may_fail(node::Job.new(Thumb, 7))),
    #     on_failure: node::Job.new(Tell, "#alerts"), tags: ["nightly"], deadline: 2.hours
    #   )
    #
    # run_id       its id; a new UUID by default. A run of an id is started once
    # on_success   a node that runs after all others
    # on_failure   a job, pushed once, when the first step dies
    # on_complete  a job, pushed once, when the run is done or cancelled, or has failed and
    #              does not go on by itself
    # tags         names to find it by
    # deadline     seconds from the start (or a duration), after which it is cancelled
    # unique_key   a name that one run may have while it lives: if another run has it,
    #              nothing starts, and its id is returned
    # template     the name that it is listed by
    #
    # The last argument of on_failure and on_complete is a hash: run_id, template, state
    # and, of a death, step, class, jid, queue, error_class, error_message and at.
    #
    # Raises InvalidWorkflow (an ArgumentError); then nothing is started.
    def run(node, run_id: nil, on_success: nil, **options)
      node = gem_module::Chain.new(node, on_success) if on_success
      options = Companion::RunOptions.new(**options)
      run_id = (run_id || SecureRandom.uuid).to_s
      Companion::NamedRun.new(node, run_id, options).start
    end

    # A step that counts as done if it fails for good: the run goes on, and keeps the error.
    def may_fail(job)
      with_policy("may_fail", job, Companion::Replacement::COUNTS_AS_DONE)
    end

    # A step with a node that runs in its place if it fails for good.
    def catch(job, fallback)
      with_policy("catch", job, Companion::Wire.read(Companion::Wire.of(fallback)))
    end

    # Settings of the records of runs: false for none; or a hash with +keep+, the seconds
    # that a record is kept after the end of its run, and +args+, false to keep the arguments
    # of steps out of it.
    def records=(settings)
      Companion::Start.records = settings
    end

    private

    def with_policy(name, job, policy)
      unless job.is_a?(gem_module::Job)
        raise InvalidWorkflow, "#{name} takes one step, #{gem_module}::Job.new(...), not #{job.inspect[0, 100]}. " \
          "For a chain or a group, wrap each of its steps."
      end
      Companion::Wire.node(Companion::Wire.of(job).merge(Companion::Replacement::POLICY => policy))
    end

    def gem_module
      Companion::Dialect.current.gem
    end
  end
end

module SidekiqFlow::Companion
  # A tree of the gem's nodes that replaces a step, in wire form.
  class NewTree
    # The option that names the part of the memory that a step writes.
    NAMESPACE = "memory_namespace"

    class << self
      include Sidekiq::JobUtil

      # Returns the wire form of a node of the gem. Raises InvalidNode.
      def read(node)
        wire = Wire.of(node)
        # Sidekiq's own rules for arguments.
        Tree.jobs(wire) { |job| verify_json(job) if job["args"].is_a?(Array) }
        Wire.read(wire).tap { |tree| Tree.check(tree) }
      rescue ArgumentError => error
        raise InvalidNode, error.message[0, 1000]
      end
    end

    # How many steps it has, and how many of them are in fallbacks.
    attr_reader :total, :skipped

    # +wire+: as +read+ returns it; +job+: the step that it replaces.
    def initialize(wire, job)
      @wire = wire
      @job = job
      Tree.jobs(wire) { |step| place(step) }
      numbers = StepNumbers.number(wire)
      @total = numbers.last
      @skipped = numbers.skipped
    end

    # A copy for its place in the run, since a thread remembers the nodes of chains that it
    # stored. +before+: number of the last step of the run; 0 if its steps have no numbers.
    def in_place(before)
      JSON.parse(JSON.generate(@wire)).tap do |copy|
        if before.zero?
          Tree.jobs(copy) { |step| step.delete(StepRecord::NUMBER) }
        else
          StepNumbers.number(copy, after: before)
        end
      end
    end

    # The compact tree, as the record shows it.
    def compact
      @compact ||= CompactTree.dump(Wire.with_queues(@wire), args: (Start.records || {}).fetch(:args, true))
    end

    private

    def place(step)
      # A barrier counts each id once.
      step.delete("jid") if step["jid"] == @job["jid"]
      names = [@job[NAMESPACE], step[NAMESPACE]].grep(String).reject(&:empty?)
      step[NAMESPACE] = names.join(".") unless names.empty?
    end
  end

  # What the record of a run holds of the tree that replaces a step. +before+: number of
  # the last step of the run; +total+: the same with the tree; +step+: number of the
  # replaced step; +added+: JSON.
  Numbers = Struct.new(:before, :total, :skipped, :step, :added) do
    # +total+: number of steps of the run, as its record has it; "" if they have none.
    def self.of(total, tree, step)
      before = total.to_i
      return new(0, 0, 0, 0, "") if before.zero? || before + tree.total > StepRecord::MOST

      new(before, before + tree.total, tree.skipped, step.number, "{\"first\":#{before + 1},\"tree\":#{tree.compact}}")
    end

    # As replace.lua reads them.
    def arguments
      [before.zero? ? "" : before.to_s, total, skipped, step, added]
    end
  end
end

module SidekiqFlow::Companion
  # Ends a step that a tree replaces: takes its job out of flight, keeps its output and
  # starts the tree with the callbacks of the step, in one step (Python's twin is
  # workflow/replacement.py).
  class StepReplacement < Completion
    # The completion of a step: a replacement if it asked for a tree that has something to
    # run. Raises InvalidNode.
    def self.of(execution, unit, fields)
      node = execution.changes.node if execution.changes?
      return Completion.new(unit, execution.job, fields) if node.nil? || Tree.completes_at_once?(node)

      new(unit, execution.job, fields, node)
    end

    def initialize(unit, job, fields, node)
      super(unit, job, fields)
      @node = node
      @tree = NewTree.new(node, job)
      # The step is counted in its barrier, or releases it; the last step of the tree
      # counts down that barrier, or another one.
      @top_kind = @kinds.first || ""
      @ttl = Lifetimes.barrier_ttl(node, @stack)
    end

    # Plans the tree, and writes nothing that a step that fails would have to take back.
    def prepare
      keep_chains
      number_after(run_total)
    end

    def advance
      loop do
        outcome = Trouble.patiently(@unit.config.logger) { send_script }
        case outcome
        when :done, :gone then return pour
        when :cancelled then return
        when Replies::Total then number_after(outcome.value)
        when :stage_lost then next # the plan stages it again
        end
      end
    end

    private

    # The stored chains of the stack outlive the tree.
    def keep_chains
      chains = CallbackStorage.chains(@job[Dialect.current.callbacks])
      return if chains.empty?

      ttl = [@ttl + CallbackStorage::MARGIN, Lifetimes::MAX_TTL].min
      redis { |conn| Scripts.run(conn, "extend", ["", *chains], [ttl, 0]) }
    end

    # The number of steps of the run, as its record has it: "" if they have none.
    def run_total
      return "" if step.keys.empty?

      state, total = redis { |conn| conn.call("HMGET", step.key, "state", "total") }
      state && total ? total : ""
    end

    # Plans the tree with the numbers behind the last one of the run.
    def number_after(total)
      @numbers = Numbers.of(total, @tree, step)
      stack, barrier = stack_of_tree
      @plan = Plan.new(@tree.in_place(@numbers.before), stack, run_id: run_id, finished: @job,
        queue: @unit.queue_name, config: @unit.config)
      @plan.add_barrier(barrier) if barrier
    end

    # The callback stack of the tree, and the new barrier of its top: the barrier of a
    # chain is released by the step, so that a second delivery of it does nothing.
    def stack_of_tree
      return [@stack, nil] unless @top_kind == "f"

      barrier = SecureRandom.uuid
      *below, top = @stack
      [[*below, Callback.new(barrier, top.remaining, top.propagate)], barrier]
    end

    def send_script
      plan_keys, plan_arguments = @plan.writes
      marker = @stack.empty? ? "swf:released:#{unit_id}" : ""
      keys = [memory_key, marker, step.key, *@top_down.map(&:barrier), *plan_keys]
      arguments = [unit_id, @ttl, Memory.current&.ttl || 0, step.text, *@numbers.arguments,
        @fields.size / 2, *@fields, @top_kind, @top_down.size, *plan_arguments]
      @unit.replace_step(keys, arguments)
    end

    def redis(&block)
      Trouble.patiently(@unit.config.logger) { @unit.config.redis(&block) }
    end
  end
end

module SidekiqFlow
  # The job that runs on this thread is not a step of a run, or the companion does not
  # run it.
  class NoCurrentRun < StandardError; end

  # The run of the job that runs on this thread. What a step asks for here is written when
  # it ends, in the script that acknowledges it; a step that raises has asked for nothing.
  class CurrentRun
    attr_reader :run_id, :jid

    def initialize(execution)
      @execution = execution
      @run_id = Companion::Run.id(execution.job)
      @jid = execution.job["jid"]
    end

    # Replaces this step by a tree when it ends: what follows the step waits for the tree.
    # Of several calls, the last one counts. An empty chain just goes on.
    #
    # tree  a node of the gem: a Chain, Group, WithDelay or Job, or SidekiqFlow.wait_for(...)
    def replace(tree)
      raise InvalidWorkflow, "A step is replaced by a tree: replace(Chain.new(a, b))" if tree.nil?

      changes.tree = tree
      nil
    end

    # Starts steps when this step ends; they run beside each other, and beside the tree
    # that replaces it. What follows this step waits for them. May be called many times.
    def add(*steps)
      raise InvalidWorkflow, "add takes nodes, not an array of them: add(*steps)" if steps.any?(Array)

      changes.added.concat(steps)
      nil
    end

    private

    def changes
      if Companion::Run.callback?(@execution.job)
        raise NoCurrentRun, "A callback of a run is not a step, so nothing can replace it"
      end

      @execution.changes
    end
  end

  # The run of the job that runs on this thread. Raises NoCurrentRun.
  def self.current_run
    execution = Companion::Execution.current
    return CurrentRun.new(execution) if execution && !Companion::Run.id(execution.job).nil?

    raise NoCurrentRun, "No step of a run is performed on this thread by a Sidekiq process with the companion " \
      "(SidekiqFlow::Companion.configure)"
  end
end

module SidekiqFlow
  # Steps that wait for a signal, for trees of Ruby (Python's twin is wire/wait_for.py).
  module WaitFor
    # The beginning of the names under which these steps are carried.
    PREFIX = "wait for "

    # The longest name of a signal, in characters.
    MOST = 200

    class << self
      # Returns a name of a signal as text. Raises InvalidWorkflow.
      def name(value)
        text = value.to_s
        return text if text.length.between?(1, MOST) && text.match?(/\A[[:print:]]+\z/)

        raise InvalidWorkflow, "A signal has a name of 1 to #{MOST} printable characters, not #{value.inspect[0, 100]}"
      end

      # Milliseconds of a time limit in seconds, or nil.
      def milliseconds(timeout)
        return if timeout.nil?

        seconds = Companion::Lifetimes.seconds(timeout)
        return (seconds * 1000).round if seconds && (0..Companion::Tree::MAX_DELAY).cover?(seconds * 1000)

        raise InvalidWorkflow, "timeout takes seconds, or a duration such as 3.days, not #{timeout.inspect[0, 100]}"
      end

      # The wire form of a node, or nil.
      def otherwise(node)
        Companion::NewTree.read(node) unless node.nil?
      rescue Companion::InvalidNode => error
        raise InvalidWorkflow, error.message
      end

      # The name of a queue that this process does not consume.
      def queue(name)
        raise InvalidWorkflow, QUEUE_NEEDED unless (name.is_a?(String) || name.is_a?(Symbol)) && !name.empty?

        return name.to_s unless consumed.include?(name.to_s)

        raise InvalidWorkflow, "This Ruby process takes from queue #{name.to_s.inspect}. #{QUEUE_NEEDED}"
      end

      private

      # The queues of this process, if it is a worker.
      def consumed
        return [] unless Sidekiq.server?

        Sidekiq.default_configuration.capsules.each_value.flat_map(&:queues)
      end
    end

    QUEUE_NEEDED = "A step that waits for a signal is run by a Python worker: name a queue that one consumes, " \
      "and that no Ruby process consumes, wait_for(name, queue: \"python\")"
    private_constant :QUEUE_NEEDED
  end

  # A node that is done when its run gets a signal; see SidekiqFlow.signal. A Python worker
  # runs it.
  #
  # name       of the signal. Its data is written to the memory of the run under this name
  # queue      a queue that a Python worker consumes
  # timeout    seconds, or a duration; without one, it waits for half a year, as long as
  #            Sidekiq keeps dead jobs
  # otherwise  a node that runs in its place if the signal has not come in time; an empty
  #            chain just goes on. Without one, the step dies with SignalTimeout
  def self.wait_for(name, queue: nil, timeout: nil, otherwise: nil)
    gem = Companion::Dialect.current.gem
    name = WaitFor.name(name)
    carried = WaitFor::PREFIX + name
    arguments = [name, WaitFor.milliseconds(timeout), WaitFor.otherwise(otherwise)]
    gem.const_get(:Job).new(gem.const_get(:NoopWorker), *arguments,
      queue: WaitFor.queue(queue), retry: true, wrapped: carried, display_class: carried)
  end
end

module SidekiqFlow
  # No workflow has this run id, or what Redis knows of the run has expired.
  class UnknownRun < StandardError; end

  # Signals to runs (Python's twin is store/run_signals.py).
  module Signals
    # Seconds that a signal is kept at least.
    KEPT = Companion::Lifetimes::RETRY_HORIZON

    # The keys of signal.lua.
    def self.keys(run_id)
      [*%w[flow run signals waiting].map { |name| "swf:#{name}:#{run_id}" }, "schedule", "queues"]
    end
  end

  # Sends a signal to a run: all its steps that wait for the name go on, and so does one
  # whose turn comes later. The data is written to the memory of the run; nil writes nothing.
  #
  # data  what JSON can carry
  #
  # Returns false, with nothing changed, if the run is done or cancelled. Raises UnknownRun.
  def self.signal(run_id, name, data = nil)
    arguments = [WaitFor.name(name), Sidekiq.dump_json(data), Signals::KEPT]
    reply = Sidekiq.redis { |conn| Companion::Scripts.run(conn, "signal", Signals.keys(run_id), arguments) }
    sent = Companion::Replies.signal(reply)
    raise UnknownRun, "There is no run #{run_id.inspect[0, 255]}, so it got no signal" if sent == :unknown

    sent != :ended
  end
end

module SidekiqFlow::Companion
  # Lets Sidekiq's poller survive a server that fails before its first round: the
  # error would end its thread, and no scheduled job would ever be pushed.
  module PatientPoller
    private

    def initial_wait
      super
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.log(logger, error)
    end
  end
end

module SidekiqFlow::Companion
  # Sidekiq's enqueuer (config[:scheduled_enq]): moves due jobs from `schedule` and
  # `retry` to their queues, each in one step, where Sidekiq's own removes a job
  # first and pushes it second. A job that cannot be read goes to `dead`.
  #
  # Unlike in Sidekiq's own, client middleware does not run again here: two pollers
  # may read the same job, and only one of them will move it.
  class Promoter
    include Sidekiq::Component
    include Sidekiq::JobUtil

    BATCH = 100

    # With an +error+ it goes to `dead`, and has no queue.
    Promotion = Struct.new(:member, :queue, :payload, :error)

    def initialize(config)
      @config = config
      @done = false
      @complained = {}
    end

    def enqueue_jobs(sets = %w[retry schedule])
      sets.each do |set|
        enqueue_due(set)
      rescue RedisClient::Error, ConnectionPool::TimeoutError => error
        return Trouble.log(logger, error) if Trouble.passes?(error)

        # A set of another type does not stop the other set.
        complain(set, "#{set} cannot be read: #{error.message}")
      end
    end

    def terminate
      @done = true
    end

    private

    def enqueue_due(set)
      stuck = 0
      until @done
        command = ["ZRANGE", set, "-inf", Time.now.to_f.to_s, "BYSCORE", "LIMIT", stuck, BATCH]
        members = redis { |conn| conn.call(*command) }
        stuck += promote(set, members.map { |member| promotion(member) }) unless members.empty?
        break if members.size < BATCH
      end
      return unless stuck > 0

      complain(set, "#{stuck} due jobs of #{set} can go nowhere: `dead` or `queues` is of another type. Remove it")
    end

    # Logs once a minute for each set.
    def complain(set, text)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      return if @complained[set] && now - @complained[set] < 60

      @complained[set] = now
      logger.error(text)
    end

    # Moves jobs. Returns how many stay where they are.
    def promote(set, promotions)
      misplaced, stuck = move(set, promotions)
      misplaced.map! { |found| refused(found) }
      stuck += move(set, misplaced).flatten(1) unless misplaced.empty?
      bad = [*promotions.select(&:error), *misplaced] - stuck
      unless bad.empty?
        logger.error("#{bad.size} due jobs of #{set} cannot go to a queue and are now in 'dead': " \
          "#{bad.first.error.message}: #{bad.first.member.inspect[0, 200]}")
      end
      stuck.size
    end

    def refused(found)
      error = WrongType.new("The Redis key queue:#{found.queue} is not a list, so the job cannot go there.")
      Promotion.new(found.member, "", Payload.dead(found.payload, error, found.queue), error)
    end

    # Returns the jobs whose queue is of another type, and those that stay because
    # `dead`, `queues` or the set itself is of another type.
    def move(set, promotions)
      keys = [set, "dead", "queues", *promotions.map { |found| "queue:#{found.queue}" }]
      arguments = [Time.now.to_f.to_s, *promotions.flat_map { |found| [found.member, found.queue, found.payload] }]
      left = Replies.promote(redis { |conn| Scripts.run(conn, "promote", keys, arguments) })
      [left.misplaced, left.stuck].map { |numbers| numbers.map { |number| promotions[number - 1] } }
    end

    def promotion(member)
      raw = Payload.unwrapped(member)
      error = Payload.fault(raw)
      raise error if error

      item = Payload.parse(raw)
      item.delete("at")
      item.delete("queue") if item["queue"] == "" || item["queue"].nil?
      check_queue(item)
      item["jid"] = Payload.jid(item, raw)
      item = normalize_item(item)
      item["enqueued_at"] = Payload.stamp
      Promotion.new(member, item["queue"], Sidekiq.dump_json(item))
    rescue => error
      error = InvalidPayload.new(error.message) unless error.is_a?(InvalidPayload)
      Promotion.new(member, "", Payload.dead(member, error, "default"), error)
    end

    def check_queue(item)
      return if !item.key?("queue") || item["queue"].is_a?(String)

      raise InvalidPayload, "The job's queue is not a name: #{item["queue"].inspect[0, 200]}"
    end
  end
end

module SidekiqFlow::Companion
  class << self
    # Puts the companion in place, in a process that is a Sidekiq server.
    #
    # config             as Sidekiq.configure_server yields it
    # heartbeat_timeout  seconds without a heartbeat after which a worker is dead;
    #                    the same as in Python (where heartbeat_timeout is in
    #                    milliseconds)
    # memory             {key_prefix: "swf:mem", ttl: 86_400}, false for none;
    #                    by default the gem's own configuration.memory
    # inherit            keys of a payload that a finished step hands on to the
    #                    next, in addition to Inherited::KEYS; "x-*" for all keys
    #                    that begin so
    # fetch, promote     false keeps Sidekiq's own
    #
    # Raises Unsupported if this Sidekiq or this gem lacks a method that the
    # companion overrides.
    def configure(config, heartbeat_timeout: 60, memory: nil, inherit: [], fetch: true, promote: true)
      require "sidekiq/manager"
      Requirements.check(config.logger)
      Memory.option = memory
      Inherited.add(inherit)
      replace_middleware(config)
      override_sidekiq
      configure_client(config)
      Dialect.current.gem.singleton_class.prepend(Prolongation)
      config[:flow_worker] = Worker.new(config, heartbeat_timeout)
      config[:fetch_class] = Fetch if fetch
      config[:scheduled_enq] = Promoter if promote
      config.death_handlers << ->(job, error) { DeathHandlers.log(config, job, error) }
      config.on(:startup) { start(config) }

      # ---- Registry: publishes the job classes of this application for Python, if
      # ---- sidekiq_flow_registry.rb was required before.
      SidekiqFlow::Registry.publish_with(config) if defined?(SidekiqFlow::Registry)
    end

    # For processes that push jobs and start workflows: runs get records. Requiring the companion does
    # it in a process that is not a server, and +configure+ in a server.
    def configure_client(config)
      Starts.install
      config.client_middleware { |chain| chain.prepend(Pushes) }
    end

    private

    def replace_middleware(config)
      config.server_middleware do |chain|
        chain.insert_after(Dialect.current.gem::Middleware, Output)
        chain.remove(Dialect.current.gem::Middleware)
        # Outermost: an error of any other middleware is a failure of the job.
        chain.prepend(Outcome)
      end
    end

    def override_sidekiq
      Sidekiq::Manager.prepend(SignOff)
      Sidekiq::Processor.prepend(Processing)
      Sidekiq::Scheduled::Poller.prepend(PatientPoller)
    end

    def start(config)
      check_middleware(config)
      Memory.current # raises here, and not in the first job, if it cannot be read
      ActiveJobEvents.subscribe
      config.logger.info(Requirements.banner)
    end

    # With both middlewares, each job would be counted down twice.
    def check_middleware(config)
      middleware = Dialect.current.gem::Middleware
      chains = [config.server_middleware, *config.capsules.each_value.map(&:server_middleware)]
      return if chains.none? { |chain| chain.exists?(middleware) }

      raise "#{middleware} was added after #{name}.configure, which replaces it: call configure last"
    end
  end
end

# The name that applications use.
SidekiqFlow::CallbackStorage = SidekiqFlow::Companion::CallbackStorage

# For processes that are not a server: they do not call configure.
Sidekiq.configure_client { |config| SidekiqFlow::Companion.configure_client(config) }

# The Lua scripts, the same text as in the Python package.
__END__
-- @file advance.lua
-- Advances a run past a finished step: takes its job out of flight, writes its
-- output to the memory, counts down barriers, and writes the plan of the
-- continuation.  Of a paused run, the plan is parked.  Atomic, and safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none), record (see _record), the callbacks'
--       (see _walk), the plan's (see _plan)
-- ARGV: receipt, unit (the jid), ttl of barriers in seconds,
--       seconds that the memory is kept after its run,
--       receipt under which the worker keeps the next job ('' = push it),
--       the step's text (see _record), the fields' (see _fields), the callbacks',
--       index of the callback that the plan is for (1 = the top), 0 = no plan,
--       the plan's
-- Returns: {'DONE'} | {'GONE'} the receipt is not in flight: sent twice, or
--       recovered by another worker | {'PLAN', index} nothing written: that
--       callback fires, send its plan | {'EXPIRED', BARRIER} nothing written
--       | {'TYPE', key} nothing written: another type, or a barrier that is not a
--       whole number | {'STAGE', key} nothing written: stage the plan again
--       | {'CANCELLED'} done, and the run is cancelled: nothing of it starts
--       | {'KEPT'} done, and the next job is in flight here under its receipt
--       | {'KEPT', payload} the same, sent twice: the job that the first call kept
--
-- A worker that goes on at once offers a receipt of its own for a plan of one job, for
-- the queue of this hash.  That saves the push, the fetch and a round trip.  A queue
-- with jobs, or a paused one, refuses: the job is pushed.  The worker is registered:
-- its hash holds the finished job, and only a worker with an empty one is removed.

-- The advance past a step of a chain that one job follows: most steps of most runs.  It
-- reads and writes the same as the rest of advance.lua, in two thirds of the time, since
-- it makes no functions and tables.
--
-- chain_step() -> the reply of advance.lua, with its keys and arguments; nil if that must
--                 look itself: nothing is written then

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- RELEASED_TTL: seconds, a day.  A released barrier is kept so long in case a duplicate
-- arrives late.  A text, since Redis formats numbers of Lua as floats.

local RELEASED_TTL = '86400'
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.

-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end

local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end

local function chain_step()
  local fields = tonumber(ARGV[7])
  local a = 8 + 2 * fields
  local barriers = ARGV[a + 2]
  local n = barriers == '1' and 2 or 0
  -- One callback, which fires this plan: at most one barrier, and one job.
  if ARGV[a] ~= 'f' or ARGV[a + 1] ~= '1' or #ARGV ~= a + 5 + n or #KEYS ~= 5 + n / 2 then return end
  if n == 0 and barriers ~= '0' or n == 2 and ARGV[a + 4] ~= '1' then return end
  -- A step that had failed, and one in 50, writes more to the record.
  local record, step = KEYS[3], ARGV[6]
  if string.find(step, '^!') or string.find(step, '^%d*[05]0 ') then return end
  if ARGV[a + 3 + n] ~= '1' or ARGV[a + 4 + n] ~= '1' or fields > 100 then return end

  -- Reads.  What is not as usual, such as a key of another type, is left to advance.lua.
  local call, pcall, may = redis.call, redis.pcall, redis.acl_check_cmd
  local in_flight, memory, barrier, list, payload = KEYS[1], KEYS[2], KEYS[4], KEYS[#KEYS], ARGV[a + 5 + n]
  local ran, name, keep = barrier .. '_ran', string.sub(list, 7), ARGV[5]
  local found, length = pcall('MGET', barrier, ran), pcall('LLEN', list)
  if found[1] ~= '1' or found[2] ~= '-1' or type(length) ~= 'number' then return end
  local kept = keep ~= '' and length == 0 and pcall('SISMEMBER', 'paused', name) ~= 1
  if not kept and pcall('SISMEMBER', 'queues', name) ~= 1 then return end
  if memory ~= '' then
    local left = call('TTL', memory)
    if left ~= -2 and left < math.max(tonumber(ARGV[3]), tonumber(ARGV[4])) - SLACK then return end
    -- A missing one needs a TTL.
    if fields > 0 and call('TYPE', memory).ok ~= 'hash' then return end
  end
  if may then
    if not may('SETEX', barrier, '1', '') or fields > 0 and not may('HSET', memory, '', '') then return end
    if kept and not may('HSET', in_flight, keep, '') or not kept and not may('LPUSH', list, '') then return end
  end
  local state = record_state(record)
  if state == 'cancelled' or state == 'paused' or not state and record ~= '' and step == '' then return end

  -- Writes.
  if pcall('HDEL', in_flight, ARGV[1]) ~= 1 then return end
  if fields > 0 then call('HSET', memory, unpack(ARGV, 8, a - 1)) end
  call('SETEX', barrier, RELEASED_TTL, '0')
  call('SETEX', ran, RELEASED_TTL, '0')
  if n > 0 then
    call('SETEX', KEYS[5], ARGV[a + 3], '1')
    call('SETEX', KEYS[5] .. '_ran', ARGV[a + 3], '-1')
  end
  if state and step ~= '' then mark_done(record, step) end
  if kept then
    call('HSET', in_flight, keep, payload)
    return {'KEPT'}
  end
  call('LPUSH', list, payload)
  return {'DONE'}
end

local stepped = chain_step()
if stepped then return stepped end

-- The walk over a step's callback stack: which barriers the step counts down,
-- and which callback then fires.  advance.lua walks for a step on a Sidekiq queue,
-- count.lua for one on another broker, whose barriers have a fourth key.
--
-- In KEYS, from k on, per callback from the top: BARRIER, its id.  Its other keys have
--   names made of it: BARRIER_ran, BARRIER:u, and BARRIER:f (see count.lua)
-- In ARGV[a]: the kinds of the callbacks from the top, a letter each
--   'f' fires a continuation         (the walk stops there)
--   'n' has none and propagates      (count down the next one, too)
--   's' has none, does not propagate (the walk stops)
--
-- disarmed_in(record, barrier, value, marker) -> the hash of disarmed barriers, if it holds
--                            this one, which is armed for this script (see _parked); else nil
-- read_barrier(barrier) -> value and marker; or nil, nil and an error reply as of walk
-- read_any_barrier(barrier, needs) -> the same; 0 and 0 if needs, and the barrier has expired: that of a group
--                            that needs some of its members is missed by those that are late only
-- walk(unit, k, a, elsewhere, record) -> a table, or nil and an error reply: {'TYPE', key}
--                            | {'EXPIRED', BARRIER} | an error if the user may not count
--                            down.  It writes nothing.  elsewhere: true reads BARRIER:f.
--                            record: of the run, or ''.  The table has
--   n         number of callbacks
--   counts    barriers to count down, in order; all are released, but the last may wait
--   released  number of them that are released
--   fire      index of the callback that fires (1 = the top), 0 = none
--   again     set if this unit released the barrier of that callback before (elsewhere)
--   new       false if the top barrier counted this step before
--   late      set to {barrier, unit} if the unit comes after the group of that barrier, which
--             needs some of its members, was met (see _need): nothing follows
-- no_walk() -> the walk of a step that counts nothing, since its run is cancelled
-- count_units(barrier, units, ttl): counts down a barrier that waits, for units that it
--                            has not counted
-- count_down(count, kept, ttl): writes one of counts, and keeps a released barrier for
--                            kept seconds.  BARRIER:u of one that waits lives for ttl
--                            seconds, or as long as the barrier if that is longer
-- count_late(late, ttl): writes walked.late
-- prolong_waiting(walked, ttl): prolongs barriers that still wait, with all their keys,
--                            to ttl seconds
--
-- The set BARRIER:u holds the units that a barrier has counted: the jid of a
-- child, or the barrier's id of a finished inner group.  So a job that is
-- delivered twice counts once.  The barrier of a chain has no such set: it is made to
-- count one unit, which releases it, and then its marker refuses that unit.

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Groups that need some of their members.  The barrier of such a group has an id of version
-- 8, whose first eight digits are the number of members that may die: of all, without those
-- that are needed.  It is met when it is down to 0.  A member that ends later is *late*: it
-- is counted in BARRIER:u, which stays, and nothing follows it.
--
-- BARRIER:d is a hash of the dead members.  j<ID> is the member of a death that is counted: ID
-- is the number of a step, or the barrier of a group in it that needs some of its members,
-- and cannot get them.  The member is what is above the barrier in the callback stack: a
-- barrier, or else the number of the step.  u<MEMBER> is its number of deaths, and n the number
-- of dead members
--
-- spare_of(barrier) -> the number of members that may die; nil for any other barrier
-- any_needs(barriers) -> true if one of them is the barrier of such a group
-- barriers_in(first, last) -> the barriers among these KEYS, each before its other keys, from the
--       last one on
-- first_keys(first, n) -> n KEYS
-- is_met(barrier) -> true if the group needs no more members, or if its barrier has expired
-- count_death(dead, id, member, ttl) -> the number of dead members, after a death: dead is BARRIER:d
-- is_spared(barriers, number, ttl) -> true if a group can do without a step that is dead, which is counted
-- record_death(record, state, number, failure, barriers, ttl): as record_dead of _record, but a
--       death that a group can do without does not stop the run: it is spared.  barriers: of the
--       step, from the top; ttl: seconds that the deaths of members are kept
-- record_failure(record, state, number, failure, ttl, ran, barriers): record_death, or with ran
--       record_caught, of a step that goes to `dead`; nothing for the number ''.  For a step
--       without a number it makes the record, as known_state, and keeps it for ttl seconds
-- spare_all(record, barrier): the deaths in the members of a group that can do without them are spared
-- forget_death(dead, id) -> the number of dead members, if there is one less; else nil
-- revive(record, barriers, number): a step that had failed is done
-- revived(record, state, text, barriers, ttl) -> the state after a step is done: one that had
--       failed (see _record) is dead no more, and the other deaths of its group may be spared


local function spare_of(barrier)
  if string.byte(barrier, 15) ~= 56 or #barrier ~= 36 then return end
  return tonumber(string.sub(barrier, 1, 8), 16)
end

local function any_needs(barriers)
  for _, barrier in ipairs(barriers) do
    if spare_of(barrier) then return true end
  end
  return false
end

local function barriers_in(first, last)
  local found = {}
  for i = first, last - 1 do
    if KEYS[i + 1] == KEYS[i] .. '_ran' then table.insert(found, 1, KEYS[i]) end
  end
  return found
end

local function first_keys(first, n)
  local found = {}
  for i = first, first + n - 1 do found[#found + 1] = KEYS[i] end
  return found
end

local function is_met(barrier)
  local value = redis.pcall('GET', barrier)
  return type(value) ~= 'string' or (tonumber(value) or 1) <= 0
end

local function count_death(dead, id, member, ttl)
  if redis.pcall('HEXISTS', dead, 'j' .. id) == 0 then
    redis.pcall('HSET', dead, 'j' .. id, member)
    if redis.pcall('HINCRBY', dead, 'u' .. member, 1) == 1 then redis.pcall('HINCRBY', dead, 'n', 1) end
  end
  local left, n = redis.pcall('TTL', dead), redis.pcall('HGET', dead, 'n')
  if type(left) == 'number' and left < ttl then redis.pcall('EXPIRE', dead, ttl) end
  return type(n) == 'string' and tonumber(n) or 0
end

local function is_spared(barriers, number, ttl)
  local id = number
  for i, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      if is_met(barrier) then return true end
      if count_death(barrier .. ':d', id, barriers[i - 1] or number, ttl) <= spare then return true end
      -- The group is a dead member of the next one.
      id = barrier
    end
  end
  return false
end

local function record_death(record, state, number, failure, barriers, ttl)
  if not any_needs(barriers) then return record_dead(record, state, number, failure) end
  forget_spared(record, number)
  if state ~= 'cancelled' and is_spared(barriers, number, ttl) then
    redis.pcall('HSET', record .. ':failed', number, failure)
    return spare_failure(record, number)
  end
  record_dead(record, state, number, failure)
end

local function record_failure(record, state, number, failure, ttl, ran, barriers)
  local has_number = tonumber(number)
  if not has_number and number ~= '' then state = state or known_state(record, '', ttl) end
  if not state or number == '' then return end
  if ran then
    record_caught(record, number, failure, ran)
  else
    record_death(record, state, number, failure, barriers, ttl)
  end
  if not has_number then prolong_record(record, state, ttl) end
end

local function spare_all(record, barrier)
  local fields = redis.pcall('HKEYS', barrier .. ':d')
  if fields.err then return end
  for _, field in ipairs(fields) do
    local id = string.match(field, '^j(.*)$')
    if id and #id == 36 then
      spare_all(record, id)
    elseif id then
      spare_failure(record, id)
    end
  end
end

local function forget_death(dead, id)
  local member = redis.pcall('HGET', dead, 'j' .. id)
  if type(member) ~= 'string' then return end
  redis.pcall('HDEL', dead, 'j' .. id)
  if redis.pcall('HINCRBY', dead, 'u' .. member, -1) ~= 0 then return end
  redis.pcall('HDEL', dead, 'u' .. member)
  return redis.pcall('HINCRBY', dead, 'n', -1)
end

local function revive(record, barriers, number)
  local id = number
  for _, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      -- Only then it was too many before, and is not now.
      if forget_death(barrier .. ':d', id) ~= spare then return end
      spare_all(record, barrier)
      id = barrier
    end
  end
end

local function revived(record, state, text, barriers, ttl)
  local number = string.match(text, '^!(%d+)') or string.match(text, '^!(jid:.+)')
  if not number or not any_needs(barriers) then return state end
  revive(record, barriers, number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function read_barrier(barrier)
  local ran = barrier .. '_ran'
  -- MGET returns false for a missing key, and for a key of another type.
  local found = redis.call('MGET', barrier, ran)
  local value, marker = found[1] and whole(found[1]), found[2] and whole(found[2])
  if value and marker then return value, marker end
  for i, key in ipairs({barrier, ran}) do
    local is_number = found[i] and whole(found[i])
    if not is_number and redis.call('EXISTS', key) == 1 then return nil, nil, {'TYPE', key} end
  end
  return nil, nil, {'EXPIRED', barrier}
end

local function disarmed_in(record, barrier, value, marker)
  if marker ~= 0 or value < 1 or record == '' then return end
  local disarmed = record .. ':disarmed'
  if redis.pcall('HEXISTS', disarmed, barrier) == 1 then return disarmed end
end

local function read_any_barrier(barrier, needs)
  local value, marker, wrong = read_barrier(barrier)
  if needs and wrong and wrong[1] == 'EXPIRED' then return 0, 0 end
  return value, marker, wrong
end

local function walk(unit, k, a, elsewhere, record)
  local kinds = ARGV[a]
  local n = #kinds
  local walked = {n = n, first_key = k, counts = {}, released = 0, fire = 0, again = false, new = true}
  for i = 1, n do
    local barrier, kind = KEYS[k + i - 1], string.sub(kinds, i, i)
    local releaser, wrong = false
    if elsewhere then releaser, wrong = checked('GET', barrier .. ':f') end
    if wrong then return nil, wrong end
    if releaser then
      if i == 1 then walked.new = false end
      -- The unit that released the barrier repeats its walk.
      if releaser ~= unit then break end
    else
      local value, marker, counted
      local needs = spare_of(barrier)
      value, marker, wrong = read_any_barrier(barrier, needs)
      if wrong then return nil, wrong end
      local released = value <= 1
      local alone = released and kind == 'f'
      if not alone then counted, wrong = checked('SISMEMBER', barrier .. ':u', unit) end
      if wrong then return nil, wrong end
      local disarmed = disarmed_in(record, barrier, value, marker)
      if disarmed then marker = -1 end
      if needs and marker ~= -1 and counted ~= 1 then
        wrong = denied('SADD', barrier .. ':u', '')
        if wrong then return nil, wrong end
        walked.late = {barrier = barrier, unit = unit}
        break
      end
      if marker ~= -1 or counted == 1 then
        if i == 1 then walked.new = false end
        break
      end
      if released then wrong = denied('SETEX', barrier, '1', '') else wrong = denied('DECRBY', barrier, '1') end
      if wrong then return nil, wrong end
      local count = {barrier = barrier, unit = unit, value = value, released = released, alone = alone}
      count.needs = needs
      count.disarmed = disarmed
      walked.counts[#walked.counts + 1] = count
      if not released then break end
      walked.released = walked.released + 1
    end
    if kind == 'f' then
      walked.fire, walked.again = i, releaser
      break
    end
    if kind == 's' then break end
    unit = barrier
  end
  return walked
end

local function no_walk()
  return {n = 0, first_key = 1, counts = {}, released = 0, fire = 0, again = false, new = true}
end

local function count_units(barrier, units, ttl)
  local set = barrier .. ':u'
  redis.call('DECRBY', barrier, #units)
  redis.call('SADD', set, unpack(units))
  if redis.call('TTL', set) < 0 then
    -- As long as the barrier, which may wait for a child with a long delay.
    redis.call('EXPIRE', set, math.max(ttl, redis.call('TTL', barrier)))
  end
end

local function count_late(late, ttl)
  local set = late.barrier .. ':u'
  redis.call('SADD', set, late.unit)
  if redis.call('TTL', set) < 0 then redis.call('EXPIRE', set, ttl) end
end

local function count_down(count, kept, ttl)
  if count.released then
    -- For members that are late.
    if count.needs then kept = math.max(tonumber(kept), redis.call('TTL', count.barrier)) end
    redis.call('SETEX', count.barrier, kept, count.value == 1 and '0' or count.value - 1)
    redis.call('SETEX', count.barrier .. '_ran', kept, '0')
    if count.disarmed then redis.pcall('HDEL', count.disarmed, count.barrier) end
    if count.needs then
      redis.call('SADD', count.barrier .. ':u', count.unit)
      redis.call('EXPIRE', count.barrier .. ':u', kept)
    elseif not count.alone then
      redis.call('UNLINK', count.barrier .. ':u')
    end
    return
  end
  count_units(count.barrier, {count.unit}, ttl)
end

local function prolong_waiting(walked, ttl)
  for i = walked.released, walked.n - 1 do
    local barrier = KEYS[walked.first_key + i]
    if redis.call('TTL', barrier) < ttl - SLACK then
      redis.call('EXPIRE', barrier, ttl)
      redis.call('EXPIRE', barrier .. '_ran', ttl)
      redis.call('EXPIRE', barrier .. ':u', ttl)
    end
  end
end
-- Fields of a run's memory in the arguments.
--
-- In ARGV, from a on: number of fields, per field: name, JSON
--
-- read_fields(a)            -> the fields, and the index behind them
-- write_fields(key, fields): writes them; the caller has checked the type of the key

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local function read_fields(a)
  local n = tonumber(ARGV[a])
  local last = a + 2 * n
  return {n = n, first = a + 1, last = last}, last + 1
end

local function write_fields(key, fields)
  call_in_slices('HSET', key, ARGV, fields.first, fields.last)
end
-- The plan for the continuation of a step, or for the first jobs of a run: reads it
-- from the arguments, then writes it.
--
-- In KEYS, from k on:  1 per barrier (its id; BARRIER_ran is written, too), then
--                      1 per queue list, then of a fan-out: swf:fanout:ID, 'swf:fanouts'
-- In ARGV, from a on:  number of barriers; per barrier: ttl, value (0 = made released)
--                      number of queues;   per queue: n, n payloads
--                      number of scheduled; per job: score, payload
--                      number of fan-outs (0 or 1), then of it: ID, how many
--                      elements it has, how many queues it goes to, their names
--                      ('' = `schedule`)
--                      A number that is left out at the end is 0.
-- QUEUES and SCHEDULE are the set and the zset that all plans write.
--
-- may_keep(keep, length, name) -> keep if a queue of that length is empty and not paused, else nil
-- read_plan(k, a, keep, parked) -> the plan, or nil and an error reply:
--                      {'TYPE', key} | {'STAGE', key} the list of the fan-out is gone
--                      | an error if the user may not write the jobs
--                      keep: nil, or where to keep the job of a plan that has no other:
--                      {hash, receipt}.  It is kept there, instead of pushed, if
--                      its queue is empty and not in the set PAUSED; then plan.kept is keep
--                      parked: nil, or the record of a paused run, whose jobs are parked
-- park_plan(plan): parks its jobs
-- write_plan(plan): cannot fail, since read_plan has checked all types
--
-- A plan that is too large for one script was staged as a list (fanouts.py).  It is
-- only committed here: the list no longer expires, and its ID is in `swf:fanouts`, so
-- any process can push its jobs (pour.lua).

-- Jobs of a paused run: they are parked, and go on when the run is resumed (unpark.lua).
--
-- swf:parked:ID is a list; what is at its head goes on first.  Each entry has a letter and
-- a name, then a NUL, then a job:
--       qNAME     goes to a queue
--       sSCORE    goes to `schedule`
--       rSCORE    goes to `retry`
--       fID       a staged fan-out, which is committed; the run id in quotes stands for its
--                 jobs, so that they are found
-- swf:flow:ID:disarmed is a hash of the barriers that were disarmed for the plain gem:
-- BARRIER -> name of a queue, a NUL, and the job that fires it later (see hold_barriers.lua)
--
-- PARKED_TTL: seconds for which all of that is kept, as long as `dead` keeps its jobs
-- parked_list(record) -> swf:parked:ID
-- cannot_park(record) -> nil, or the reply if nothing can be parked: {'TYPE', key}, or an error
-- park(record, command, entries): parks them at the end (RPUSH), or at the head (LPUSH)
-- split_entry(entry) -> letter and name, job


local PARKED_TTL = 15552000

local function parked_list(record)
  return 'swf:parked:' .. string.sub(record, 10)
end

local function cannot_park(record)
  local list = parked_list(record)
  if not type_is(list, 'list') then return {'TYPE', list} end
  return denied('RPUSH', list, '') or denied('LPUSH', list, '') or denied('EXPIRE', list, '1')
end

local function park(record, command, entries)
  local list = parked_list(record)
  call_in_slices(command, list, entries, 1, #entries)
  redis.call('EXPIRE', list, PARKED_TTL)
end

local function split_entry(entry)
  local at = string.find(entry, '\0', 1, true) or #entry + 1
  return string.sub(entry, 1, 1), string.sub(entry, 2, at - 1), string.sub(entry, at + 1)
end

local QUEUES, SCHEDULE, PAUSED = 'queues', 'schedule', 'paused'

local function may_keep(keep, length, name)
  -- A key of another type pauses nothing.
  if keep and length == 0 and redis.pcall('SISMEMBER', PAUSED, name) ~= 1 then return keep end
end

local function read_plan(k, a, keep, parked)
  local refused = parked and cannot_park(parked)
  if refused then return nil, refused end
  if parked then keep = nil end
  local n = tonumber(ARGV[a] or 0); a = a + 1
  local plan = {barriers = n, barrier_key = k, barrier_argument = a, queues = {}, parked = parked}
  k = k + n; a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  for i = 1, n do
    local key, count = KEYS[k], tonumber(ARGV[a])
    local name = string.sub(key, 7)
    local length, listed, wrong
    length, wrong = checked('LLEN', key)
    if wrong then return nil, wrong end
    plan.kept = may_keep(keep, length, name)
    if plan.kept then
      wrong = denied('HSET', keep.hash, keep.receipt, '')
    else
      listed, wrong = checked('SISMEMBER', QUEUES, name)
      if listed == 0 then wrong = denied('SADD', QUEUES, name) end
      wrong = wrong or denied('LPUSH', key, '')
    end
    if wrong then return nil, wrong end
    plan.queues[i] = {key = key, name = name, first = a + 1, last = a + count, listed = listed == 1}
    k = k + 1; a = a + 1 + count
  end
  n = tonumber(ARGV[a] or 0); a = a + 1
  plan.first_scheduled, plan.last_scheduled = a, a + 2 * n - 1
  if n > 0 then
    if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
    local wrong = denied('ZADD', SCHEDULE, '0', '')
    if wrong then return nil, wrong end
  end
  a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  if n > 0 then
    local list, fanouts = KEYS[k], KEYS[k + 1]
    if not type_is(list, 'list') then return nil, {'TYPE', list} end
    if redis.call('LLEN', list) ~= tonumber(ARGV[a + 1]) then return nil, {'STAGE', list} end
    if not type_is(fanouts, 'zset') then return nil, {'TYPE', fanouts} end
    for i = a + 3, a + 2 + tonumber(ARGV[a + 2]) do
      local name = ARGV[i]
      if name == '' then
        if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
      else
        local queue = 'queue:' .. name
        if not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
        if not type_is(queue, 'list') then return nil, {'TYPE', queue} end
      end
    end
    plan.fanout = {list = list, fanouts = fanouts, now = redis.call('TIME')[1], id = ARGV[a]}
  end
  return plan
end

local function park_plan(plan)
  local entries = {}
  for _, queue in ipairs(plan.queues) do
    for i = queue.first, queue.last do entries[#entries + 1] = 'q' .. queue.name .. '\0' .. ARGV[i] end
  end
  for i = plan.first_scheduled, plan.last_scheduled, 2 do
    entries[#entries + 1] = 's' .. ARGV[i] .. '\0' .. ARGV[i + 1]
  end
  if plan.fanout then
    redis.call('EXPIRE', plan.fanout.list, PARKED_TTL)
    entries[#entries + 1] = 'f' .. plan.fanout.id .. '\0"' .. string.sub(plan.parked, 10) .. '"'
  end
  park(plan.parked, 'RPUSH', entries)
end

local function write_plan(plan)
  local k, a = plan.barrier_key, plan.barrier_argument
  for _ = 1, plan.barriers do
    local ttl = plan.parked and math.max(PARKED_TTL, tonumber(ARGV[a])) or ARGV[a]
    redis.call('SETEX', KEYS[k], ttl, ARGV[a + 1])
    redis.call('SETEX', KEYS[k] .. '_ran', ttl, ARGV[a + 1] == '0' and '0' or '-1')
    k = k + 1; a = a + 2
  end
  if plan.parked then return park_plan(plan) end
  for _, queue in ipairs(plan.queues) do
    if plan.kept then
      redis.call('HSET', plan.kept.hash, plan.kept.receipt, ARGV[queue.first])
    else
      if not queue.listed then redis.call('SADD', QUEUES, queue.name) end
      call_in_slices('LPUSH', queue.key, ARGV, queue.first, queue.last)
    end
  end
  call_in_slices('ZADD', SCHEDULE, ARGV, plan.first_scheduled, plan.last_scheduled)
  if plan.fanout then
    redis.call('PERSIST', plan.fanout.list)
    redis.call('ZADD', plan.fanout.fanouts, plan.fanout.now, plan.fanout.id)
  end
end
-- The lifetime of a run's memory.  It lives as long as its run: while a barrier waits,
-- as long as the barriers; at the end of the run, for its own ttl, or for the ttl that
-- extend_ttl set, if that is longer (swf:keep:MEMORY lives that long).
--
-- keep_memory(memory, memory_ttl, ttl, walked, fires): memory '' = none; memory_ttl: seconds
--                      after the run; ttl: of barriers; walked: see _walk; fires: true if a
--                      callback fires
-- is_over(walked, fires) -> true if nothing of the run is left


local function is_over(walked, fires)
  return walked.released == walked.n and not fires
end

local function keep_memory(memory, memory_ttl, ttl, walked, fires)
  if memory == '' then return end
  local left, wanted = redis.call('TTL', memory), memory_ttl
  local waits, over = walked.released < walked.n, is_over(walked, fires)
  if not over then wanted = math.max(wanted, ttl) end
  -- The lowest barrier waits for the whole run, including siblings with a delay.
  if waits then
    local lowest = KEYS[walked.first_key + walked.n - 1]
    wanted = math.max(wanted, redis.call('TTL', lowest))
  end
  if left ~= -2 and (over or left < wanted - SLACK) then
    redis.call('EXPIRE', memory, math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory)))
  end
end

local in_flight, memory, record = KEYS[1], KEYS[2], KEYS[3]
local receipt, unit, ttl, memory_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local keep = ARGV[5] ~= '' and {hash = in_flight, receipt = ARGV[5]} or nil

local function gone()
  local kept = keep and redis.call('HGET', in_flight, keep.receipt)
  return kept and {'KEPT', kept} or {'GONE'}
end

-- The reply if nothing can be written: a job that is not in flight needs nothing.
local function refuse(reply)
  local found, wrong = checked('HEXISTS', in_flight, receipt)
  if wrong then return wrong end
  return found == 1 and reply or gone()
end

-- Reads.
local fields, a = read_fields(7)
-- Nothing follows a step without callbacks.
local state, ending
if ARGV[a] == '' then state, ending = record_end(record) else state = record_state(record) end
-- The barriers of a cancelled run may be disarmed, so none is read.
local cancelled, walked, wrong = state == 'cancelled', nil, nil
local parked = state == 'paused' and record or nil
if cancelled then walked = no_walk() else walked, wrong = walk(unit, 4, a, false, record) end
if not walked then return refuse(wrong) end
a = a + 1
local fires = walked.fire > 0
if fires and tonumber(ARGV[a]) ~= walked.fire then return refuse({'PLAN', walked.fire}) end
local writes_fields = walked.new and fields.n > 0
if writes_fields then
  if not type_is(memory, 'hash') then return refuse({'TYPE', memory}) end
  wrong = denied('HSET', memory, '', '')
  if wrong then return refuse(wrong) end
end
local plan
if fires then
  plan, wrong = read_plan(4 + walked.n, a + 1, keep, parked)
  if not plan then return refuse(wrong) end
end

-- Writes.  HDEL, the gate, comes first: Redis allows it when it is out of memory,
-- and after it also allows the other writes of the script.
local taken
taken, wrong = checked('HDEL', in_flight, receipt)
if wrong then return wrong end
if taken == 0 then return gone() end
if parked then ttl = math.max(ttl, PARKED_TTL) end
if writes_fields then write_fields(memory, fields) end
for _, count in ipairs(walked.counts) do count_down(count, RELEASED_TTL, ttl) end
if walked.late then count_late(walked.late, ttl) end
if plan then write_plan(plan) end
prolong_waiting(walked, ttl)
if walked.new then keep_memory(memory, memory_ttl, ttl, walked, fires) end
state = state or known_state(record, ARGV[6], ttl)
if state then
  for _, count in ipairs(walked.counts) do
    if count.needs and count.released then spare_all(record, count.barrier) end
  end
  state = record_steps(record, state, {ARGV[6]}, ttl)
  if had_failed(ARGV[6]) then state = revived(record, state, ARGV[6], first_keys(4, walked.n), ttl) end
  if not cancelled and walked.new and is_over(walked, fires) then
    finish_record(record, state, ARGV[6], ending)
  end
end
if cancelled then return {'CANCELLED'} end
return {plan and plan.kept and 'KEPT' or 'DONE'}
-- @file beat.lua
-- Records heartbeats and returns workers whose heartbeat has expired.
--
-- KEYS: swf:workers
-- ARGV: seconds without a beat that make a worker dead, number of the dead to
--       skip (they are known), per member of this process: its name, and
--       number of jobs that it holds ('' = do not compare)
-- Returns: {members without a beat for that long, 16 at most,
--       members of this process that have more in flight than they hold,
--       1 if committed fan-outs still have jobs to push (see pour.lua), else 0}

local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6
local timeout = tonumber(ARGV[1])

local function beat(member)
  -- Redis allows ZREM when it is out of memory, and after it also ZADD: a full
  -- Redis must not make every worker look dead.
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZADD', KEYS[1], string.format('%.6f', now), member)
end

local more = {}
for i = 3, #ARGV, 2 do
  beat(ARGV[i])
  if ARGV[i + 1] ~= '' then
    local found = redis.pcall('HLEN', 'swf:inflight:' .. ARGV[i])
    if type(found) == 'number' and found > tonumber(ARGV[i + 1]) then more[#more + 1] = ARGV[i] end
  end
end
-- If the clock of Redis was set back, beats are in the future, and dead workers would
-- not be found until the clock has caught up.  Set these beats to now; live workers
-- beat again soon.
local future = string.format('(%.6f', now + timeout)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], future, '+inf', 'LIMIT', 0, 100)) do beat(member) end
local expired = string.format('(%.6f', now - timeout)
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', expired, 'LIMIT', ARGV[2], 16)
local has_fanouts = redis.call('TYPE', 'swf:fanouts').ok == 'zset'
return {dead, more, has_fanouts and 1 or 0}
-- @file begin.lua
-- Marks a job that was fetched ahead as begun: its receipt BASE:I? becomes BASE:I.
-- Only jobs that have begun are counted when their worker dies.  Safe to send twice.
--
-- KEYS: in-flight hash
-- ARGV: the receipt, with its '?'
-- Returns: 1, or 0 if the job is not in flight here: another worker has recovered
--       it, and it must not run | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end

if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
local begun = string.sub(ARGV[1], 1, -2)
local payload = redis.call('HGET', KEYS[1], ARGV[1])
if not payload then return redis.call('HEXISTS', KEYS[1], begun) end
local refused = denied('HSET', KEYS[1], begun, '')
if refused then return refused end
-- Redis allows HDEL when it is out of memory, and after it also HSET.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], begun, payload)
return 1
-- @file cancel.lua
-- Cancels a run: its record says so, and the list of cancelled runs, which workers read.
-- Its callback on_complete is pushed (see _run_callback).
-- Safe to send twice.
--
-- KEYS: record (see _record), 'swf:cancelled' (see _listing)
-- ARGV: reason, seconds for which a run stays in the list, most runs in it
-- Returns: {'DONE'} | {'ENDED', state} the run is done, or was cancelled before: nothing
--       written | {'UNKNOWN'} there is no record | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end
-- The list of runs whose steps must not start, which workers read: the sorted set
-- swf:cancelled holds the ids of cancelled and of paused runs by the time of that.  Each
-- score is higher than those before, also if the clock was set back: a worker reads only
-- what comes behind the last one that it knows.
--
-- cannot_list(list) -> nil, or the reply if no run can be added: {'TYPE', key}, or an error
-- next_score(list, now) -> the score of the next run
-- list_run(list, id, score, now, kept, most): adds a run.  kept: seconds for which a run
--       stays in the list; most: runs in it


local function cannot_list(list)
  if not type_is(list, 'zset') then return {'TYPE', list} end
  return denied('ZADD', list, '0', '') or denied('ZREMRANGEBYSCORE', list, '0', '0')
    or denied('ZREMRANGEBYRANK', list, '0', '0') or denied('EXPIRE', list, '1')
end

local function next_score(list, now)
  local last = redis.call('ZRANGE', list, -1, -1, 'WITHSCORES')[2]
  local score = last and tonumber(last) >= tonumber(now) and string.format('%.3f', tonumber(last) + 0.001) or now
  return score
end

local function list_run(list, id, score, now, kept, most)
  redis.call('ZADD', list, score, id)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', string.format('(%.3f', tonumber(now) - kept))
  redis.call('ZREMRANGEBYRANK', list, 0, -most - 1)
  redis.call('EXPIRE', list, kept)
end

local record, list = KEYS[1], KEYS[2]
local reason, kept, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local id = string.sub(record, 10)

-- Reads.
local found, wrong = checked('HMGET', record, 'state', 'keep', 'started', 'on_complete', 'unique', 'deadline')
if wrong then return wrong end
local state, keep = found[1], tonumber(found[2] or '') or 604800
if not state then return {'UNKNOWN'} end
if state == 'done' or state == 'cancelled' then return {'ENDED', state} end
wrong = cannot_list(list) or denied('HSET', record, '', '')
if wrong then return wrong end
local now = seconds_now()
local score = next_score(list, now)

-- Writes.  ZREM comes first: Redis allows it when it is out of memory, and after it also
-- the others.
redis.call('ZREM', list, id)
redis.call('HSET', record, 'state', 'cancelled', 'finished', now, 'reason', reason)
list_run(list, id, score, now, kept, most)
relist(record, state, 'cancelled', found[3], keep)
for _, part in ipairs(PARTS) do redis.pcall('EXPIRE', record .. part, keep) end
end_run(record, 'cancelled', {found[4], found[5], found[6]}, now)
return {'DONE'}
-- @file extend.lua
-- Extends the lifetimes of a run's barriers and memory; shortens none of them.
--
-- KEYS: swf:keep:MEMORY ('' = none), then the keys to keep alive
-- ARGV: ttl in seconds, '1' if the memory must live that long even if the run ends
--       earlier
-- Returns: number of the keys that exist

-- Extends lifetimes, and never shortens them.  A missing key stays missing.
--
-- prolong(key, ttl): to at least ttl seconds.  A key without an expiry gets one, since
--       all keys of a run expire
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but
--       leaves a key without an expiry unchanged, and one whose lifetime is at most
--       slack seconds shorter than ttl

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end

local ttl, found = tonumber(ARGV[1]), 0
if ARGV[2] == '1' and KEYS[1] ~= '' and redis.call('TTL', KEYS[1]) < ttl then
  redis.call('SETEX', KEYS[1], ttl, 1)
end
for i = 2, #KEYS do
  if prolong_volatile(KEYS[i], ttl, 0) then found = found + 1 end
end
return found
-- @file fail.lua
-- Moves a failed job from flight to `retry` or `dead`, or discards it.  A step of a cancelled
-- run is discarded instead of retried.  Others may take the place of a step that is dead or
-- discarded: their plan is written, too, or parked if the run is paused.
--
-- KEYS: in-flight hash, 'retry' or 'dead', record (see _record), then keys of barriers,
--       memory and record to keep alive, then the plan's (see _plan)
-- ARGV: receipt, action ('retry', 'dead', 'discard'), score, payload,
--       score up to which `dead` is trimmed, maximum jobs in `dead`,
--       seconds that the kept keys live from now on, for `dead` the number of the step
--       ('jid:' and its jid if it has none, '' = it is not a step), and what its record holds
--       of the failure; if others take its place also: how many keys to keep alive, number of
--       steps that run in its place, the plan's
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} nothing written | {'STAGE', key} nothing written: stage the plan again

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- Extends lifetimes, and never shortens them.  A missing key stays missing.
--
-- prolong(key, ttl): to at least ttl seconds.  A key without an expiry gets one, since
--       all keys of a run expire
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but
--       leaves a key without an expiry unchanged, and one whose lifetime is at most
--       slack seconds shorter than ttl

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end
-- Groups that need some of their members.  The barrier of such a group has an id of version
-- 8, whose first eight digits are the number of members that may die: of all, without those
-- that are needed.  It is met when it is down to 0.  A member that ends later is *late*: it
-- is counted in BARRIER:u, which stays, and nothing follows it.
--
-- BARRIER:d is a hash of the dead members.  j<ID> is the member of a death that is counted: ID
-- is the number of a step, or the barrier of a group in it that needs some of its members,
-- and cannot get them.  The member is what is above the barrier in the callback stack: a
-- barrier, or else the number of the step.  u<MEMBER> is its number of deaths, and n the number
-- of dead members
--
-- spare_of(barrier) -> the number of members that may die; nil for any other barrier
-- any_needs(barriers) -> true if one of them is the barrier of such a group
-- barriers_in(first, last) -> the barriers among these KEYS, each before its other keys, from the
--       last one on
-- first_keys(first, n) -> n KEYS
-- is_met(barrier) -> true if the group needs no more members, or if its barrier has expired
-- count_death(dead, id, member, ttl) -> the number of dead members, after a death: dead is BARRIER:d
-- is_spared(barriers, number, ttl) -> true if a group can do without a step that is dead, which is counted
-- record_death(record, state, number, failure, barriers, ttl): as record_dead of _record, but a
--       death that a group can do without does not stop the run: it is spared.  barriers: of the
--       step, from the top; ttl: seconds that the deaths of members are kept
-- record_failure(record, state, number, failure, ttl, ran, barriers): record_death, or with ran
--       record_caught, of a step that goes to `dead`; nothing for the number ''.  For a step
--       without a number it makes the record, as known_state, and keeps it for ttl seconds
-- spare_all(record, barrier): the deaths in the members of a group that can do without them are spared
-- forget_death(dead, id) -> the number of dead members, if there is one less; else nil
-- revive(record, barriers, number): a step that had failed is done
-- revived(record, state, text, barriers, ttl) -> the state after a step is done: one that had
--       failed (see _record) is dead no more, and the other deaths of its group may be spared


local function spare_of(barrier)
  if string.byte(barrier, 15) ~= 56 or #barrier ~= 36 then return end
  return tonumber(string.sub(barrier, 1, 8), 16)
end

local function any_needs(barriers)
  for _, barrier in ipairs(barriers) do
    if spare_of(barrier) then return true end
  end
  return false
end

local function barriers_in(first, last)
  local found = {}
  for i = first, last - 1 do
    if KEYS[i + 1] == KEYS[i] .. '_ran' then table.insert(found, 1, KEYS[i]) end
  end
  return found
end

local function first_keys(first, n)
  local found = {}
  for i = first, first + n - 1 do found[#found + 1] = KEYS[i] end
  return found
end

local function is_met(barrier)
  local value = redis.pcall('GET', barrier)
  return type(value) ~= 'string' or (tonumber(value) or 1) <= 0
end

local function count_death(dead, id, member, ttl)
  if redis.pcall('HEXISTS', dead, 'j' .. id) == 0 then
    redis.pcall('HSET', dead, 'j' .. id, member)
    if redis.pcall('HINCRBY', dead, 'u' .. member, 1) == 1 then redis.pcall('HINCRBY', dead, 'n', 1) end
  end
  local left, n = redis.pcall('TTL', dead), redis.pcall('HGET', dead, 'n')
  if type(left) == 'number' and left < ttl then redis.pcall('EXPIRE', dead, ttl) end
  return type(n) == 'string' and tonumber(n) or 0
end

local function is_spared(barriers, number, ttl)
  local id = number
  for i, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      if is_met(barrier) then return true end
      if count_death(barrier .. ':d', id, barriers[i - 1] or number, ttl) <= spare then return true end
      -- The group is a dead member of the next one.
      id = barrier
    end
  end
  return false
end

local function record_death(record, state, number, failure, barriers, ttl)
  if not any_needs(barriers) then return record_dead(record, state, number, failure) end
  forget_spared(record, number)
  if state ~= 'cancelled' and is_spared(barriers, number, ttl) then
    redis.pcall('HSET', record .. ':failed', number, failure)
    return spare_failure(record, number)
  end
  record_dead(record, state, number, failure)
end

local function record_failure(record, state, number, failure, ttl, ran, barriers)
  local has_number = tonumber(number)
  if not has_number and number ~= '' then state = state or known_state(record, '', ttl) end
  if not state or number == '' then return end
  if ran then
    record_caught(record, number, failure, ran)
  else
    record_death(record, state, number, failure, barriers, ttl)
  end
  if not has_number then prolong_record(record, state, ttl) end
end

local function spare_all(record, barrier)
  local fields = redis.pcall('HKEYS', barrier .. ':d')
  if fields.err then return end
  for _, field in ipairs(fields) do
    local id = string.match(field, '^j(.*)$')
    if id and #id == 36 then
      spare_all(record, id)
    elseif id then
      spare_failure(record, id)
    end
  end
end

local function forget_death(dead, id)
  local member = redis.pcall('HGET', dead, 'j' .. id)
  if type(member) ~= 'string' then return end
  redis.pcall('HDEL', dead, 'j' .. id)
  if redis.pcall('HINCRBY', dead, 'u' .. member, -1) ~= 0 then return end
  redis.pcall('HDEL', dead, 'u' .. member)
  return redis.pcall('HINCRBY', dead, 'n', -1)
end

local function revive(record, barriers, number)
  local id = number
  for _, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      -- Only then it was too many before, and is not now.
      if forget_death(barrier .. ':d', id) ~= spare then return end
      spare_all(record, barrier)
      id = barrier
    end
  end
end

local function revived(record, state, text, barriers, ttl)
  local number = string.match(text, '^!(%d+)') or string.match(text, '^!(jid:.+)')
  if not number or not any_needs(barriers) then return state end
  revive(record, barriers, number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end
-- The plan for the continuation of a step, or for the first jobs of a run: reads it
-- from the arguments, then writes it.
--
-- In KEYS, from k on:  1 per barrier (its id; BARRIER_ran is written, too), then
--                      1 per queue list, then of a fan-out: swf:fanout:ID, 'swf:fanouts'
-- In ARGV, from a on:  number of barriers; per barrier: ttl, value (0 = made released)
--                      number of queues;   per queue: n, n payloads
--                      number of scheduled; per job: score, payload
--                      number of fan-outs (0 or 1), then of it: ID, how many
--                      elements it has, how many queues it goes to, their names
--                      ('' = `schedule`)
--                      A number that is left out at the end is 0.
-- QUEUES and SCHEDULE are the set and the zset that all plans write.
--
-- may_keep(keep, length, name) -> keep if a queue of that length is empty and not paused, else nil
-- read_plan(k, a, keep, parked) -> the plan, or nil and an error reply:
--                      {'TYPE', key} | {'STAGE', key} the list of the fan-out is gone
--                      | an error if the user may not write the jobs
--                      keep: nil, or where to keep the job of a plan that has no other:
--                      {hash, receipt}.  It is kept there, instead of pushed, if
--                      its queue is empty and not in the set PAUSED; then plan.kept is keep
--                      parked: nil, or the record of a paused run, whose jobs are parked
-- park_plan(plan): parks its jobs
-- write_plan(plan): cannot fail, since read_plan has checked all types
--
-- A plan that is too large for one script was staged as a list (fanouts.py).  It is
-- only committed here: the list no longer expires, and its ID is in `swf:fanouts`, so
-- any process can push its jobs (pour.lua).

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end
-- Jobs of a paused run: they are parked, and go on when the run is resumed (unpark.lua).
--
-- swf:parked:ID is a list; what is at its head goes on first.  Each entry has a letter and
-- a name, then a NUL, then a job:
--       qNAME     goes to a queue
--       sSCORE    goes to `schedule`
--       rSCORE    goes to `retry`
--       fID       a staged fan-out, which is committed; the run id in quotes stands for its
--                 jobs, so that they are found
-- swf:flow:ID:disarmed is a hash of the barriers that were disarmed for the plain gem:
-- BARRIER -> name of a queue, a NUL, and the job that fires it later (see hold_barriers.lua)
--
-- PARKED_TTL: seconds for which all of that is kept, as long as `dead` keeps its jobs
-- parked_list(record) -> swf:parked:ID
-- cannot_park(record) -> nil, or the reply if nothing can be parked: {'TYPE', key}, or an error
-- park(record, command, entries): parks them at the end (RPUSH), or at the head (LPUSH)
-- split_entry(entry) -> letter and name, job


local PARKED_TTL = 15552000

local function parked_list(record)
  return 'swf:parked:' .. string.sub(record, 10)
end

local function cannot_park(record)
  local list = parked_list(record)
  if not type_is(list, 'list') then return {'TYPE', list} end
  return denied('RPUSH', list, '') or denied('LPUSH', list, '') or denied('EXPIRE', list, '1')
end

local function park(record, command, entries)
  local list = parked_list(record)
  call_in_slices(command, list, entries, 1, #entries)
  redis.call('EXPIRE', list, PARKED_TTL)
end

local function split_entry(entry)
  local at = string.find(entry, '\0', 1, true) or #entry + 1
  return string.sub(entry, 1, 1), string.sub(entry, 2, at - 1), string.sub(entry, at + 1)
end

local QUEUES, SCHEDULE, PAUSED = 'queues', 'schedule', 'paused'

local function may_keep(keep, length, name)
  -- A key of another type pauses nothing.
  if keep and length == 0 and redis.pcall('SISMEMBER', PAUSED, name) ~= 1 then return keep end
end

local function read_plan(k, a, keep, parked)
  local refused = parked and cannot_park(parked)
  if refused then return nil, refused end
  if parked then keep = nil end
  local n = tonumber(ARGV[a] or 0); a = a + 1
  local plan = {barriers = n, barrier_key = k, barrier_argument = a, queues = {}, parked = parked}
  k = k + n; a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  for i = 1, n do
    local key, count = KEYS[k], tonumber(ARGV[a])
    local name = string.sub(key, 7)
    local length, listed, wrong
    length, wrong = checked('LLEN', key)
    if wrong then return nil, wrong end
    plan.kept = may_keep(keep, length, name)
    if plan.kept then
      wrong = denied('HSET', keep.hash, keep.receipt, '')
    else
      listed, wrong = checked('SISMEMBER', QUEUES, name)
      if listed == 0 then wrong = denied('SADD', QUEUES, name) end
      wrong = wrong or denied('LPUSH', key, '')
    end
    if wrong then return nil, wrong end
    plan.queues[i] = {key = key, name = name, first = a + 1, last = a + count, listed = listed == 1}
    k = k + 1; a = a + 1 + count
  end
  n = tonumber(ARGV[a] or 0); a = a + 1
  plan.first_scheduled, plan.last_scheduled = a, a + 2 * n - 1
  if n > 0 then
    if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
    local wrong = denied('ZADD', SCHEDULE, '0', '')
    if wrong then return nil, wrong end
  end
  a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  if n > 0 then
    local list, fanouts = KEYS[k], KEYS[k + 1]
    if not type_is(list, 'list') then return nil, {'TYPE', list} end
    if redis.call('LLEN', list) ~= tonumber(ARGV[a + 1]) then return nil, {'STAGE', list} end
    if not type_is(fanouts, 'zset') then return nil, {'TYPE', fanouts} end
    for i = a + 3, a + 2 + tonumber(ARGV[a + 2]) do
      local name = ARGV[i]
      if name == '' then
        if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
      else
        local queue = 'queue:' .. name
        if not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
        if not type_is(queue, 'list') then return nil, {'TYPE', queue} end
      end
    end
    plan.fanout = {list = list, fanouts = fanouts, now = redis.call('TIME')[1], id = ARGV[a]}
  end
  return plan
end

local function park_plan(plan)
  local entries = {}
  for _, queue in ipairs(plan.queues) do
    for i = queue.first, queue.last do entries[#entries + 1] = 'q' .. queue.name .. '\0' .. ARGV[i] end
  end
  for i = plan.first_scheduled, plan.last_scheduled, 2 do
    entries[#entries + 1] = 's' .. ARGV[i] .. '\0' .. ARGV[i + 1]
  end
  if plan.fanout then
    redis.call('EXPIRE', plan.fanout.list, PARKED_TTL)
    entries[#entries + 1] = 'f' .. plan.fanout.id .. '\0"' .. string.sub(plan.parked, 10) .. '"'
  end
  park(plan.parked, 'RPUSH', entries)
end

local function write_plan(plan)
  local k, a = plan.barrier_key, plan.barrier_argument
  for _ = 1, plan.barriers do
    local ttl = plan.parked and math.max(PARKED_TTL, tonumber(ARGV[a])) or ARGV[a]
    redis.call('SETEX', KEYS[k], ttl, ARGV[a + 1])
    redis.call('SETEX', KEYS[k] .. '_ran', ttl, ARGV[a + 1] == '0' and '0' or '-1')
    k = k + 1; a = a + 2
  end
  if plan.parked then return park_plan(plan) end
  for _, queue in ipairs(plan.queues) do
    if plan.kept then
      redis.call('HSET', plan.kept.hash, plan.kept.receipt, ARGV[queue.first])
    else
      if not queue.listed then redis.call('SADD', QUEUES, queue.name) end
      call_in_slices('LPUSH', queue.key, ARGV, queue.first, queue.last)
    end
  end
  call_in_slices('ZADD', SCHEDULE, ARGV, plan.first_scheduled, plan.last_scheduled)
  if plan.fanout then
    redis.call('PERSIST', plan.fanout.list)
    redis.call('ZADD', plan.fanout.fanouts, plan.fanout.now, plan.fanout.id)
  end
end

if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'GONE'} end
local action, caught = ARGV[2], ARGV[10] ~= nil
local kept = tonumber(ARGV[10] or #KEYS - 3)
local state = record_state(KEYS[3])
if action == 'retry' and state == 'cancelled' then action = 'discard' end
if action ~= 'discard' then
  if not type_is(KEYS[2], 'zset') then return {'TYPE', KEYS[2]} end
  local refused = denied('ZADD', KEYS[2], '0', '')
  if refused then return refused end
end
local plan, wrong
-- Nothing of a cancelled run starts.
if caught and state ~= 'cancelled' then
  plan, wrong = read_plan(4 + kept, 12, nil, state == 'paused' and KEYS[3] or nil)
  if not plan then return wrong end
end
redis.call('HDEL', KEYS[1], ARGV[1])
if action ~= 'discard' then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4]) end
if action == 'dead' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[6]))
end
if plan then write_plan(plan) end
record_failure(KEYS[3], state, ARGV[8], ARGV[9], tonumber(ARGV[7]), ARGV[11], barriers_in(4, 3 + kept))
for i = 4, 3 + kept do prolong(KEYS[i], tonumber(ARGV[7])) end
return {'DONE'}
-- @file fetch.lua
-- Moves a batch of jobs from a queue into flight.
--
-- KEYS: queue list, in-flight hash, swf:workers, 'paused' (optional: a caller
--       that cannot pause a queue leaves it out), swf:arrived:QUEUE (optional)
-- ARGV: member (the worker process and queue), receipt base, maximum jobs,
--       number of them that begin at once because threads are idle,
--       '1' in a burst: jobs end faster than each could be marked, else '',
--       bytes after which no further job is fetched (the first one always is)
-- Returns: {lengths in bytes, all payloads in one string, n, suffix}, since a reply
--       of many parts costs the client more than the jobs.  The receipts of the
--       first n are BASE:1, BASE:2, ... (begun), those after them have the
--       suffix: '?' not begun (begin.lua marks it later), '~' perhaps begun.
--       If the same base moved jobs before (sent twice), those jobs; none if the
--       first of them has left flight (delivered late).
--       False if the worker is not registered (it was declared dead): beat first,
--       then fetch.  {'PAUSED'} if the queue is paused: nothing was moved.  (No jobs,
--       if it is empty as well.)
--       {'TYPE', key} nothing was moved.
--
-- The list swf:arrived:QUEUE holds a job that an idle worker's BLMOVE has taken, until the
-- fetch behind it runs.  Jobs of a worker that was lost in between are fetched by any other.
--
-- The sorted set swf:fetched:MEMBER holds the bases of the last fetches that
-- moved something.

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

-- Maximum threads of one process that fetch from a queue at the same time.  A base
-- that is older than this many others counts as used.
local REMEMBERED = 64

local base, wanted = ARGV[2], tonumber(ARGV[3])
local fetched = 'swf:fetched:' .. ARGV[1]

local function reply(payloads, begun, suffix)
  local lengths = {}
  for i, payload in ipairs(payloads) do lengths[i] = #payload end
  -- A single payload, which may be large, is not copied.
  local joined = #payloads == 1 and payloads[1] or table.concat(payloads)
  return {table.concat(lengths, ' '), joined, begun, suffix}
end

-- Puts jobs that have arrived back to the end of the queue that is fetched first: it may be
-- paused, and others may have arrived.  This wakes another idle worker if one is left there.
local function put_back_arrived()
  local arrived = KEYS[5] and redis.pcall('LLEN', KEYS[5])
  if type(arrived) ~= 'number' or arrived == 0 or not type_is(KEYS[1], 'list') then return end
  local refused = denied('RPUSH', KEYS[1], '')
  if refused then return refused end
  for _ = 1, arrived do redis.call('RPUSH', KEYS[1], redis.call('RPOP', KEYS[5])) end
end

local not_put_back = put_back_arrived()
if not_put_back then return not_put_back end
local number = string.match(base, '^%x+$') and #base <= 13 and tonumber(base, 16)
local newest, refused = {}, nil
if number then
  newest, refused = checked('ZRANGE', fetched, -1, -1, 'WITHSCORES')
  if refused then return refused end
end
-- Most fetches are newer than all before them.
local latest = tonumber(newest[2])
local fresh = latest and number > latest
local registered, unreadable = checked('ZSCORE', KEYS[3], ARGV[1])
local length, other = checked('LLEN', KEYS[1])
-- A push wakes each idle process of its queue, and most of them come too late: they end here.
if fresh and registered and length == 0 then return reply({}, 0, '?') end

-- Sent twice: return the jobs, with the receipts of the first call.
local before, begun, suffix = {}, 0, '?'
for i = 1, wanted do
  local receipt = base .. ':' .. i
  local found
  found, refused = checked('HMGET', KEYS[2], receipt, receipt .. '?', receipt .. '~')
  if refused then return refused end
  local payload = found[1] or found[2] or found[3]
  if not payload then break end
  before[i] = payload
  if found[1] then begun = i else suffix = found[2] and '?' or '~' end
end
if before[1] then return reply(before, begun, suffix) end
-- Delivered late, after the first of its jobs had left flight: do not use these
-- receipts again.  A repeated command for the earlier job of a receipt would take
-- the new job out of flight.
if latest and not fresh then
  if redis.call('ZSCORE', fetched, base) then return reply({}, 0, suffix) end
  local lowest = redis.call('ZRANGE', fetched, -REMEMBERED, -REMEMBERED, 'WITHSCORES')[2]
  if lowest and number < tonumber(lowest) then return reply({}, 0, suffix) end
end

if unreadable then return unreadable end
if not registered then return false end
-- A key of another type pauses nothing.
if KEYS[4] and redis.pcall('SISMEMBER', KEYS[4], string.sub(KEYS[1], 7)) == 1 then return {'PAUSED'} end
if other then return other end
if length == 0 then return reply({}, 0, suffix) end

-- RPOP comes first, since a full Redis takes it; a user who may not call HSET would
-- lose the jobs after it.
refused = denied('HSET', KEYS[2], base, '')
if refused then return refused end

begun = tonumber(ARGV[4])
suffix = ARGV[5] == '1' and '~' or '?'
local payloads, size, most = {}, 0, tonumber(ARGV[6])
wanted = math.min(wanted, length)
-- One at a time, since the length of an element is not known in advance.
while #payloads < wanted and size <= most do
  payloads[#payloads + 1] = redis.call('RPOP', KEYS[1])
  if #payloads > 1 then size = size + #payloads[#payloads] end
end
local fields = {}
for i, payload in ipairs(payloads) do
  fields[#fields + 1] = base .. ':' .. i .. (i > begun and suffix or '')
  fields[#fields + 1] = payload
end
call_in_slices('HSET', KEYS[2], fields, 1, #fields)
if number then
  redis.call('ZADD', fetched, number, base)
  -- Now and then: up to 15 more are kept meanwhile.
  if not latest or math.floor(number / 16) > math.floor(latest / 16) then
    redis.call('ZREMRANGEBYRANK', fetched, 0, -REMEMBERED - 1)
  end
  redis.call('EXPIRE', fetched, 3600)
end
return reply(payloads, math.min(begun, #payloads), suffix)
-- @file find_jobs.lua
-- Finds the jobs that hold a text, the id of their run, in the next part of a list, a
-- sorted set or a hash.  Reads only.  Each call is short, so that others are served in
-- between.
--
-- A list is read from its head and a sorted set from its highest score, by position: jobs
-- that are pushed, fetched or promoted meanwhile move nothing out of the part that is
-- still to be read.
--
-- KEYS: queue, set, in-flight hash or other place of jobs
-- ARGV: text, cursor ('0' begins), maximum elements, bytes after which no further element
--       is read, elements to read at once (fewer if they are large)
-- Returns: {cursor of the next part ('' at the end), elements read, bytes read, payload,
--       label, ...}; the label of a job is its score in a sorted set, its receipt in a
--       hash, else ''
--     | {'TYPE', key} the key holds another type

local place, text, cursor = KEYS[1], ARGV[1], ARGV[2]
local most, most_bytes, at_once = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local find, call = string.find, redis.call
local read, bytes, found = 0, 0, {'', 0, 0}

local kind = call('TYPE', place).ok
if kind == 'list' or kind == 'zset' then
  local command = kind == 'list' and 'LRANGE' or 'ZREVRANGE'
  local from, more = tonumber(cursor), true
  while more and read < most and bytes < most_bytes do
    local slice = call(command, place, from + read, from + read + at_once - 1)
    for index = 1, #slice do
      local payload = slice[index]
      bytes = bytes + #payload
      if find(payload, text, 1, true) then
        found[#found + 1] = payload
        found[#found + 1] = kind == 'zset' and call('ZSCORE', place, payload) or ''
      end
    end
    read = read + #slice
    more = #slice == at_once
  end
  if more then found[1] = string.format('%d', from + read) end
elseif kind == 'hash' then
  repeat
    local reply = call('HSCAN', place, cursor, 'COUNT', at_once)
    cursor = reply[1]
    local pairs_read = reply[2]
    for index = 1, #pairs_read, 2 do
      local payload = pairs_read[index + 1]
      read, bytes = read + 1, bytes + #payload
      if find(payload, text, 1, true) then
        found[#found + 1] = payload
        found[#found + 1] = pairs_read[index]
      end
    end
  until cursor == '0' or read >= most or bytes >= most_bytes
  if cursor ~= '0' then found[1] = cursor end
elseif kind ~= 'none' then
  return {'TYPE', place}
end
found[2], found[3] = read, bytes
return found
-- @file park.lua
-- Parks a job in flight that did not run, since its run is paused.  If the run was resumed
-- meanwhile, the job goes back to the end of its queue that is fetched first; if it was
-- cancelled, the job is dropped.  Safe to send twice.
--
-- KEYS: in-flight hash, record (see _record), queue list, then keys of barriers, memory and
--       record to keep alive
-- ARGV: receipt, name of the queue, seconds that the kept keys live from now on
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- Extends lifetimes, and never shortens them.  A missing key stays missing.
--
-- prolong(key, ttl): to at least ttl seconds.  A key without an expiry gets one, since
--       all keys of a run expire
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but
--       leaves a key without an expiry unchanged, and one whose lifetime is at most
--       slack seconds shorter than ttl

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end
-- Jobs of a paused run: they are parked, and go on when the run is resumed (unpark.lua).
--
-- swf:parked:ID is a list; what is at its head goes on first.  Each entry has a letter and
-- a name, then a NUL, then a job:
--       qNAME     goes to a queue
--       sSCORE    goes to `schedule`
--       rSCORE    goes to `retry`
--       fID       a staged fan-out, which is committed; the run id in quotes stands for its
--                 jobs, so that they are found
-- swf:flow:ID:disarmed is a hash of the barriers that were disarmed for the plain gem:
-- BARRIER -> name of a queue, a NUL, and the job that fires it later (see hold_barriers.lua)
--
-- PARKED_TTL: seconds for which all of that is kept, as long as `dead` keeps its jobs
-- parked_list(record) -> swf:parked:ID
-- cannot_park(record) -> nil, or the reply if nothing can be parked: {'TYPE', key}, or an error
-- park(record, command, entries): parks them at the end (RPUSH), or at the head (LPUSH)
-- split_entry(entry) -> letter and name, job

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local PARKED_TTL = 15552000

local function parked_list(record)
  return 'swf:parked:' .. string.sub(record, 10)
end

local function cannot_park(record)
  local list = parked_list(record)
  if not type_is(list, 'list') then return {'TYPE', list} end
  return denied('RPUSH', list, '') or denied('LPUSH', list, '') or denied('EXPIRE', list, '1')
end

local function park(record, command, entries)
  local list = parked_list(record)
  call_in_slices(command, list, entries, 1, #entries)
  redis.call('EXPIRE', list, PARKED_TTL)
end

local function split_entry(entry)
  local at = string.find(entry, '\0', 1, true) or #entry + 1
  return string.sub(entry, 1, 1), string.sub(entry, 2, at - 1), string.sub(entry, at + 1)
end

local in_flight, record, queue = KEYS[1], KEYS[2], KEYS[3]
local receipt = ARGV[1]

-- Reads.
local payload, wrong = checked('HGET', in_flight, receipt)
if wrong then return wrong end
if not payload then return {'GONE'} end
local state = record_state(record)
if state == 'paused' then
  wrong = cannot_park(record)
elseif not type_is(queue, 'list') then
  wrong = {'TYPE', queue}
else
  wrong = denied('RPUSH', queue, '')
end
if wrong then return wrong end

-- Writes.  HDEL, the gate, comes first: Redis allows it when it is out of memory, and after
-- it also the others.
redis.call('HDEL', in_flight, receipt)
if state == 'paused' then
  park(record, 'RPUSH', {'q' .. ARGV[2] .. '\0' .. payload})
  for i = 4, #KEYS do prolong(KEYS[i], tonumber(ARGV[3])) end
elseif state ~= 'cancelled' then
  redis.call('RPUSH', queue, payload)
end
return {'DONE'}
-- @file pause.lua
-- Pauses a run: its record says so, and the list that workers read.  Safe to send twice.
--
-- KEYS: record (see _record), 'swf:cancelled' (see _listing)
-- ARGV: reason, seconds for which a run stays in the list, most runs in it
-- Returns: {'DONE'} | {'ENDED', state} the run is done or cancelled, or was paused before:
--       nothing written | {'UNKNOWN'} there is no record | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end
-- The list of runs whose steps must not start, which workers read: the sorted set
-- swf:cancelled holds the ids of cancelled and of paused runs by the time of that.  Each
-- score is higher than those before, also if the clock was set back: a worker reads only
-- what comes behind the last one that it knows.
--
-- cannot_list(list) -> nil, or the reply if no run can be added: {'TYPE', key}, or an error
-- next_score(list, now) -> the score of the next run
-- list_run(list, id, score, now, kept, most): adds a run.  kept: seconds for which a run
--       stays in the list; most: runs in it


local function cannot_list(list)
  if not type_is(list, 'zset') then return {'TYPE', list} end
  return denied('ZADD', list, '0', '') or denied('ZREMRANGEBYSCORE', list, '0', '0')
    or denied('ZREMRANGEBYRANK', list, '0', '0') or denied('EXPIRE', list, '1')
end

local function next_score(list, now)
  local last = redis.call('ZRANGE', list, -1, -1, 'WITHSCORES')[2]
  local score = last and tonumber(last) >= tonumber(now) and string.format('%.3f', tonumber(last) + 0.001) or now
  return score
end

local function list_run(list, id, score, now, kept, most)
  redis.call('ZADD', list, score, id)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', string.format('(%.3f', tonumber(now) - kept))
  redis.call('ZREMRANGEBYRANK', list, 0, -most - 1)
  redis.call('EXPIRE', list, kept)
end
-- Jobs of a paused run: they are parked, and go on when the run is resumed (unpark.lua).
--
-- swf:parked:ID is a list; what is at its head goes on first.  Each entry has a letter and
-- a name, then a NUL, then a job:
--       qNAME     goes to a queue
--       sSCORE    goes to `schedule`
--       rSCORE    goes to `retry`
--       fID       a staged fan-out, which is committed; the run id in quotes stands for its
--                 jobs, so that they are found
-- swf:flow:ID:disarmed is a hash of the barriers that were disarmed for the plain gem:
-- BARRIER -> name of a queue, a NUL, and the job that fires it later (see hold_barriers.lua)
--
-- PARKED_TTL: seconds for which all of that is kept, as long as `dead` keeps its jobs
-- parked_list(record) -> swf:parked:ID
-- cannot_park(record) -> nil, or the reply if nothing can be parked: {'TYPE', key}, or an error
-- park(record, command, entries): parks them at the end (RPUSH), or at the head (LPUSH)
-- split_entry(entry) -> letter and name, job

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local PARKED_TTL = 15552000

local function parked_list(record)
  return 'swf:parked:' .. string.sub(record, 10)
end

local function cannot_park(record)
  local list = parked_list(record)
  if not type_is(list, 'list') then return {'TYPE', list} end
  return denied('RPUSH', list, '') or denied('LPUSH', list, '') or denied('EXPIRE', list, '1')
end

local function park(record, command, entries)
  local list = parked_list(record)
  call_in_slices(command, list, entries, 1, #entries)
  redis.call('EXPIRE', list, PARKED_TTL)
end

local function split_entry(entry)
  local at = string.find(entry, '\0', 1, true) or #entry + 1
  return string.sub(entry, 1, 1), string.sub(entry, 2, at - 1), string.sub(entry, at + 1)
end

local record, list = KEYS[1], KEYS[2]
local reason, kept, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local id = string.sub(record, 10)

-- Reads.
local found, wrong = checked('HMGET', record, 'state', 'started')
if wrong then return wrong end
local state = found[1]
if not state then return {'UNKNOWN'} end
if state ~= 'running' and state ~= 'failed' then return {'ENDED', state} end
wrong = cannot_list(list) or denied('HSET', record, '', '')
if wrong then return wrong end
local now = seconds_now()
local score = next_score(list, now)

-- Writes.  ZREM comes first: Redis allows it when it is out of memory, and after it also
-- the others.
redis.call('ZREM', list, id)
redis.call('HSET', record, 'state', 'paused', 'reason', reason)
list_run(list, id, score, now, kept, most)
relist(record, state, 'paused', found[2], PARKED_TTL)
prolong_record(record, 'paused', PARKED_TTL)
outlive('swf:signals:' .. id, PARKED_TTL)
return {'DONE'}
-- @file pour.lua
-- Pushes the next part of a committed fan-out: its barriers first, then its jobs in
-- order.  Each call moves elements from the list to their keys and queues, so it may be
-- sent twice, and by any number of processes at the same time.
--
-- Elements of the list, which advance.lua, start.lua, count.lua or release.lua committed:
--         bTTL VALUE RAN ID  a barrier
--         qNAME              the payloads after it go to this queue
--         {...               a payload
--         sSCORE {...        a payload for `schedule`
--
-- KEYS: 'swf:fanouts', swf:fanout:ID, 'queues', 'schedule'
-- ARGV: ID, maximum elements (2 or more), bytes after which no further element is read
-- Returns: {'MORE'} | {'DONE'} nothing is left, or the fan-out is not committed
--       | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local fanouts, list, QUEUES, SCHEDULE = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if not type_is(fanouts, 'zset') then return {'TYPE', fanouts} end
if not redis.call('ZSCORE', fanouts, ARGV[1]) then return {'DONE'} end
if not type_is(list, 'list') then return {'TYPE', list} end

-- Reads.  A part is the name of a queue, and payloads for it.
local barriers, parts, scheduled, part = {}, {}, {}, nil
local read, bytes, most, most_bytes = 0, 0, tonumber(ARGV[2]), tonumber(ARGV[3])
while read < most and bytes < most_bytes do
  -- As many as fit if they have the average size of those before; the first one alone,
  -- since it may be large.
  local fit = read > 0 and math.floor((most_bytes - bytes) * read / bytes) or 1
  local wanted = math.max(1, math.min(100, fit, most - read))
  local elements = redis.call('LRANGE', list, read, read + wanted - 1)
  for _, element in ipairs(elements) do
    local kind = string.byte(element)
    bytes = bytes + #element
    if kind == 123 then -- {
      part.payloads[#part.payloads + 1] = element
    elseif kind == 113 then -- q
      part = {name = string.sub(element, 2), payloads = {}}
      parts[#parts + 1] = part
      if not type_is('queue:' .. part.name, 'list') then return {'TYPE', 'queue:' .. part.name} end
    elseif kind == 115 then -- s
      local score, payload = string.match(element, '^s(%S+) (.*)$')
      scheduled[#scheduled + 1] = score
      scheduled[#scheduled + 1] = payload
    else
      local ttl, value, ran, id = string.match(element, '^b(%S+) (%S+) (%S+) (.*)$')
      barriers[#barriers + 1] = {id = id, ttl = ttl, value = value, ran = ran}
    end
  end
  read = read + #elements
  if #elements < wanted then break end
end
if part and not type_is(QUEUES, 'set') then return {'TYPE', QUEUES} end
if #scheduled > 0 and not type_is(SCHEDULE, 'zset') then return {'TYPE', SCHEDULE} end

-- Writes.  Redis allows LTRIM when it is out of memory, and after it also the rest.
redis.call('LTRIM', list, read, -1)
for _, barrier in ipairs(barriers) do
  redis.call('SETEX', barrier.id, barrier.ttl, barrier.value)
  redis.call('SETEX', barrier.id .. '_ran', barrier.ttl, barrier.ran)
end
for _, pushed in ipairs(parts) do
  redis.call('SADD', QUEUES, pushed.name)
  call_in_slices('LPUSH', 'queue:' .. pushed.name, pushed.payloads, 1, #pushed.payloads)
end
call_in_slices('ZADD', SCHEDULE, scheduled, 1, #scheduled)
if redis.call('EXISTS', list) == 1 then
  -- The rest belongs to the queue that was named last.
  if part then redis.call('LPUSH', list, 'q' .. part.name) end
  return {'MORE'}
end
redis.call('ZREM', fanouts, ARGV[1])
return {'DONE'}
-- @file promote.lua
-- Moves due jobs from `schedule` or `retry` to their queues.  A job that cannot be
-- read is moved to `dead`, so that it is not lost and does not block other jobs.
--
-- KEYS: 'schedule' or 'retry', 'dead', 'queues', per job: queue list
-- ARGV: score in `dead`, per job: the member, queue name ('' = to `dead`),
--       payload to push (or to bury)
-- Returns: {number of members that were moved (without those that others moved),
--       {index of each job (1 = the first) whose queue is not a list},
--       {index of each job that cannot be moved, since 'dead', 'queues' or the
--       set itself has another type}}; the jobs of both lists stay where they are

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end

local readable = type_is(KEYS[1], 'zset')
local can_bury, can_push = readable and type_is(KEYS[2], 'zset'), readable and type_is(KEYS[3], 'set')
local moved, misplaced, stuck = 0, {}, {}
for i = 4, #KEYS do
  local at = 2 + 3 * (i - 4)
  local member, queue, payload = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if queue == '' then
    if not can_bury then
      stuck[#stuck + 1] = i - 3
    elseif redis.call('ZREM', KEYS[1], member) == 1 then
      moved = moved + 1
      redis.call('ZADD', KEYS[2], ARGV[1], payload)
    end
  elseif not can_push then
    stuck[#stuck + 1] = i - 3
  elseif not type_is(KEYS[i], 'list') then
    misplaced[#misplaced + 1] = i - 3
  elseif redis.call('ZREM', KEYS[1], member) == 1 then
    moved = moved + 1
    redis.call('SADD', KEYS[3], queue)
    redis.call('LPUSH', KEYS[i], payload)
  end
end
return {moved, misplaced, stuck}
-- @file read_callbacks.lua
-- Reads steps of a stored chain, and prolongs stored chains whose run advances.
--
-- KEYS: swf:callbacks:SHA256 to read from, then others that are only prolonged
-- ARGV: ttl in seconds, index of the first step, maximum steps ('0' = none),
--       bytes after which no further step is read, size in bytes from which a
--       value is not read (left out: all are)
-- Returns: the values from that index on; none if there are none; {nil} if the
--       first one is too large for a script: read it with HGET
--
-- The field 'largest' holds the size of the largest value, so as many values are read
-- with one command as fit even if each has that size.  A chain that version
-- 0.1 stored has no such field: the length of each of its values is read first.

-- Extends lifetimes, and never shortens them.  A missing key stays missing.
--
-- prolong(key, ttl): to at least ttl seconds.  A key without an expiry gets one, since
--       all keys of a run expire
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but
--       leaves a key without an expiry unchanged, and one whose lifetime is at most
--       slack seconds shorter than ttl

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end
-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600

local key, ttl, most, budget = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local index, large = tonumber(ARGV[2]), tonumber(ARGV[5] or math.huge)
for _, chain in ipairs(KEYS) do prolong_volatile(chain, ttl, SLACK) end
if most == 0 then return {} end

local found, size = {}, 0

-- Reads values while as many bytes fit as the largest of them has.
local function read_fast(largest)
  while #found < most and (#found == 0 or size + largest <= budget) do
    local fields = {}
    for i = 1, math.min(most - #found, math.max(1, math.floor((budget - size) / largest)), 1000) do
      fields[i] = string.format('%d', index + #found + i - 1)
    end
    for i, value in ipairs(redis.call('HMGET', key, unpack(fields))) do
      if not value then return found end
      found[#found + 1] = value
      size = size + #value
    end
  end
  return found
end

-- Reads the length of each value first.
local function read_each()
  for i = index, index + most - 1 do
    local field = string.format('%d', i)
    local length = redis.call('HSTRLEN', key, field)
    size = size + length
    if #found > 0 and size > budget then break end
    if length >= large then
      if #found == 0 then return {false} end
      break
    end
    local value = redis.call('HGET', key, field)
    if not value then break end
    found[#found + 1] = value
  end
  return found
end

local largest = tonumber(redis.call('HGET', key, 'largest'))
if largest and largest > 0 and largest < large and 2 * largest <= budget then return read_fast(largest) end
return read_each()
-- @file rearm.lua
-- Arms barriers again that were disarmed while their run was paused (hold_barriers.lua).
-- Safe to send twice.
--
-- The gem counts a barrier down, and then raises its marker by 1 if nothing is left: the
-- caller that gets 0, from -1, starts the next steps.  So of a disarmed barrier,
--   value >= 1               waits for more: the marker becomes -1
--   value <= 0, marker 0     a Ruby worker is between both commands: the marker becomes -1,
--                            and this worker starts the next steps
--   value <= 0, marker >= 1  the gem has released it, and started nothing: the barrier waits
--                            for one unit more, the job that does nothing, which is pushed
--
-- KEYS: record (see _record), 'queues', BARRIER of each
-- ARGV: none
-- Returns: {'DONE'}, also if the run is paused or cancelled: nothing written then
--       | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end
-- Jobs of a paused run: they are parked, and go on when the run is resumed (unpark.lua).
--
-- swf:parked:ID is a list; what is at its head goes on first.  Each entry has a letter and
-- a name, then a NUL, then a job:
--       qNAME     goes to a queue
--       sSCORE    goes to `schedule`
--       rSCORE    goes to `retry`
--       fID       a staged fan-out, which is committed; the run id in quotes stands for its
--                 jobs, so that they are found
-- swf:flow:ID:disarmed is a hash of the barriers that were disarmed for the plain gem:
-- BARRIER -> name of a queue, a NUL, and the job that fires it later (see hold_barriers.lua)
--
-- PARKED_TTL: seconds for which all of that is kept, as long as `dead` keeps its jobs
-- parked_list(record) -> swf:parked:ID
-- cannot_park(record) -> nil, or the reply if nothing can be parked: {'TYPE', key}, or an error
-- park(record, command, entries): parks them at the end (RPUSH), or at the head (LPUSH)
-- split_entry(entry) -> letter and name, job

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local PARKED_TTL = 15552000

local function parked_list(record)
  return 'swf:parked:' .. string.sub(record, 10)
end

local function cannot_park(record)
  local list = parked_list(record)
  if not type_is(list, 'list') then return {'TYPE', list} end
  return denied('RPUSH', list, '') or denied('LPUSH', list, '') or denied('EXPIRE', list, '1')
end

local function park(record, command, entries)
  local list = parked_list(record)
  call_in_slices(command, list, entries, 1, #entries)
  redis.call('EXPIRE', list, PARKED_TTL)
end

local function split_entry(entry)
  local at = string.find(entry, '\0', 1, true) or #entry + 1
  return string.sub(entry, 1, 1), string.sub(entry, 2, at - 1), string.sub(entry, at + 1)
end

local record, queues = KEYS[1], KEYS[2]
local disarmed, state = record .. ':disarmed', record_state(record)
if state == 'paused' or state == 'cancelled' then return {'DONE'} end

local function number_at(key)
  local text = redis.pcall('GET', key)
  return type(text) == 'string' and whole(text)
end

-- Reads.
if not type_is(disarmed, 'hash') then return {'TYPE', disarmed} end
if not type_is(queues, 'set') then return {'TYPE', queues} end
local armed, fields = {}, {}
for i = 3, #KEYS do
  local barrier = KEYS[i]
  local entry = redis.call('HGET', disarmed, barrier)
  local value, marker = number_at(barrier), number_at(barrier .. '_ran')
  if entry then fields[#fields + 1] = barrier end
  -- A barrier that is gone cannot be armed.
  if entry and value and marker then
    local each = {barrier = barrier, ttl = math.max(1, redis.call('TTL', barrier .. '_ran'))}
    if value <= 0 and marker >= 1 then
      local letter, rest, job = split_entry(entry)
      each.name, each.job = letter .. rest, job
      local queue = 'queue:' .. each.name
      if not type_is(queue, 'list') then return {'TYPE', queue} end
      local refused = denied('LPUSH', queue, '') or denied('SADD', queues, '')
      if refused then return refused end
    end
    local refused = denied('SET', barrier .. '_ran', '') or denied('SET', barrier, '')
    if refused then return refused end
    armed[#armed + 1] = each
  end
end
if #fields == 0 then return {'DONE'} end

-- Writes.  Redis allows HDEL when it is out of memory, and after it also the others.
redis.call('HDEL', disarmed, unpack(fields))
for _, each in ipairs(armed) do
  if each.job then redis.call('SET', each.barrier, '1', 'EX', each.ttl) end
  redis.call('SET', each.barrier .. '_ran', '-1', 'EX', each.ttl)
  if each.job then
    redis.call('SADD', queues, each.name)
    redis.call('LPUSH', 'queue:' .. each.name, each.job)
  end
end
return {'DONE'}
-- @file recover.lua
-- Moves the jobs that a dead worker left in flight.  The receipt of each shows if the
-- job had begun, which decides where it goes:
--
--   BASE:I?  not begun: back to its queue, not counted; but a job that becomes a
--            poison pill if counted once more waits for a trial again
--   BASE:I   begun: counted in swf:recovered:JID
--   BASE:I~  perhaps begun: the counter is created, but not incremented
--   BASE:I!  counted before, waits for its trial (see trial.lua): stays
--
-- A counted job whose counter is new goes back to its queue.  One whose counter
-- existed is a suspect: if it was counted too often it goes to `dead` (a poison pill),
-- else it becomes BASE:I! and waits, so that it cannot take other jobs down with it.
--
-- KEYS: swf:workers, in-flight hash, queue list, 'dead',
--       per job: swf:recovered:JID
-- ARGV: member, seconds without a beat, recoveries that make a poison pill, ttl of
--       the counters in seconds, score in `dead`,
--       per job: receipt, payload for `dead`; those to be fetched first come last
-- Returns: {'ALIVE'} nothing written | {'TYPE', key} nothing written
--       | {'DONE', number of jobs back in the queue, dead, and waiting for a trial,
--          {index of each job that is dead (1 = the first)},
--          {index of each job that stays, since `dead` is not a sorted set}};
--       the worker is deregistered if it has no jobs in flight any more

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
local now = redis.call('TIME')
if score and tonumber(now[1]) + tonumber(now[2]) / 1e6 - tonumber(score) < tonumber(ARGV[2]) then return {'ALIVE'} end
if not type_is(KEYS[2], 'hash') then return {'TYPE', KEYS[2]} end
if not type_is(KEYS[3], 'list') then return {'TYPE', KEYS[3]} end
local can_bury = type_is(KEYS[4], 'zset')
local refused = denied('RPUSH', KEYS[3], '') or denied('HSET', KEYS[2], '', '') or denied('ZADD', KEYS[4], '0', '')
  or KEYS[5] and denied('SET', KEYS[5], '')
if refused then return refused end

local back, waiting, dead, stay = 0, 0, {}, {}
for i = 5, #KEYS do
  local receipt, corpse = ARGV[6 + 2 * (i - 5)], ARGV[7 + 2 * (i - 5)]
  local state = string.match(receipt, '[?~!]$') or ''
  local payload = state ~= '!' and redis.call('HGET', KEYS[2], receipt)
  if payload then
    local before = redis.pcall('GET', KEYS[i])
    local suspect = type(before) == 'string'
    local count = suspect and string.match(before, '^%d%d?%d?$') and tonumber(before) or 0
    if state == '' then count = count + 1 end
    if state == '?' then suspect = count >= tonumber(ARGV[3]) - 1 end
    local pill = state == '' and count >= tonumber(ARGV[3])
    if pill and not can_bury then
      stay[#stay + 1] = i - 4
    else
      redis.call('HDEL', KEYS[2], receipt)
      if state ~= '?' then redis.call('SET', KEYS[i], count, 'EX', ARGV[4]) end
      if pill then
        redis.call('ZADD', KEYS[4], ARGV[5], corpse)
        dead[#dead + 1] = i - 4
      elseif suspect then
        redis.call('HSET', KEYS[2], string.sub(receipt, 1, #receipt - #state) .. '!', payload)
        waiting = waiting + 1
      else
        redis.call('RPUSH', KEYS[3], payload)
        back = back + 1
      end
    end
  end
end
if redis.call('HLEN', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return {'DONE', back, #dead, waiting, dead, stay}
-- @file replace.lua
-- Ends a step that a tree replaces: takes its job out of flight, writes its output to the
-- memory, and writes the plan of the tree, whose jobs carry the callbacks of the step.
-- Of a paused run, the plan is parked.  Safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none), swf:released:JID of a step without
--       callbacks ('' = it has some), record (see _record), per callback from the top:
--       BARRIER, then the plan's (see _plan)
-- ARGV: receipt, unit (the jid), seconds that the barriers live from now on, seconds
--       that the memory lives, the step's text (see _record), then for a run with numbered
--       steps ('' = without): its number of steps for which the tree was numbered, that
--       number with the tree, number of steps of the tree that are in fallbacks, number of
--       the step, what its record holds of the tree; then
--       the fields' (see _fields), kind of the callback at the top ('' = none, see _walk),
--       number of callbacks, the plan's
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TOTAL', number of steps of the run now, '' = none} nothing written: another step
--       was replaced first, number the tree again
--       | {'EXPIRED', BARRIER} | {'TYPE', key} | {'STAGE', key} nothing written
--       | {'CANCELLED'} done, and the run is cancelled: nothing of it starts
--
-- A job may be delivered twice, and only one delivery may go on.  In the barrier of a group
-- the step is noted as counted, and nothing is counted: the last step of the tree is.
-- The barrier of a chain is released, and the plan has another one in its place.  A step
-- without callbacks has a marker.

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- The walk over a step's callback stack: which barriers the step counts down,
-- and which callback then fires.  advance.lua walks for a step on a Sidekiq queue,
-- count.lua for one on another broker, whose barriers have a fourth key.
--
-- In KEYS, from k on, per callback from the top: BARRIER, its id.  Its other keys have
--   names made of it: BARRIER_ran, BARRIER:u, and BARRIER:f (see count.lua)
-- In ARGV[a]: the kinds of the callbacks from the top, a letter each
--   'f' fires a continuation         (the walk stops there)
--   'n' has none and propagates      (count down the next one, too)
--   's' has none, does not propagate (the walk stops)
--
-- disarmed_in(record, barrier, value, marker) -> the hash of disarmed barriers, if it holds
--                            this one, which is armed for this script (see _parked); else nil
-- read_barrier(barrier) -> value and marker; or nil, nil and an error reply as of walk
-- read_any_barrier(barrier, needs) -> the same; 0 and 0 if needs, and the barrier has expired: that of a group
--                            that needs some of its members is missed by those that are late only
-- walk(unit, k, a, elsewhere, record) -> a table, or nil and an error reply: {'TYPE', key}
--                            | {'EXPIRED', BARRIER} | an error if the user may not count
--                            down.  It writes nothing.  elsewhere: true reads BARRIER:f.
--                            record: of the run, or ''.  The table has
--   n         number of callbacks
--   counts    barriers to count down, in order; all are released, but the last may wait
--   released  number of them that are released
--   fire      index of the callback that fires (1 = the top), 0 = none
--   again     set if this unit released the barrier of that callback before (elsewhere)
--   new       false if the top barrier counted this step before
--   late      set to {barrier, unit} if the unit comes after the group of that barrier, which
--             needs some of its members, was met (see _need): nothing follows
-- no_walk() -> the walk of a step that counts nothing, since its run is cancelled
-- count_units(barrier, units, ttl): counts down a barrier that waits, for units that it
--                            has not counted
-- count_down(count, kept, ttl): writes one of counts, and keeps a released barrier for
--                            kept seconds.  BARRIER:u of one that waits lives for ttl
--                            seconds, or as long as the barrier if that is longer
-- count_late(late, ttl): writes walked.late
-- prolong_waiting(walked, ttl): prolongs barriers that still wait, with all their keys,
--                            to ttl seconds
--
-- The set BARRIER:u holds the units that a barrier has counted: the jid of a
-- child, or the barrier's id of a finished inner group.  So a job that is
-- delivered twice counts once.  The barrier of a chain has no such set: it is made to
-- count one unit, which releases it, and then its marker refuses that unit.

-- RELEASED_TTL: seconds, a day.  A released barrier is kept so long in case a duplicate
-- arrives late.  A text, since Redis formats numbers of Lua as floats.

local RELEASED_TTL = '86400'
-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- Groups that need some of their members.  The barrier of such a group has an id of version
-- 8, whose first eight digits are the number of members that may die: of all, without those
-- that are needed.  It is met when it is down to 0.  A member that ends later is *late*: it
-- is counted in BARRIER:u, which stays, and nothing follows it.
--
-- BARRIER:d is a hash of the dead members.  j<ID> is the member of a death that is counted: ID
-- is the number of a step, or the barrier of a group in it that needs some of its members,
-- and cannot get them.  The member is what is above the barrier in the callback stack: a
-- barrier, or else the number of the step.  u<MEMBER> is its number of deaths, and n the number
-- of dead members
--
-- spare_of(barrier) -> the number of members that may die; nil for any other barrier
-- any_needs(barriers) -> true if one of them is the barrier of such a group
-- barriers_in(first, last) -> the barriers among these KEYS, each before its other keys, from the
--       last one on
-- first_keys(first, n) -> n KEYS
-- is_met(barrier) -> true if the group needs no more members, or if its barrier has expired
-- count_death(dead, id, member, ttl) -> the number of dead members, after a death: dead is BARRIER:d
-- is_spared(barriers, number, ttl) -> true if a group can do without a step that is dead, which is counted
-- record_death(record, state, number, failure, barriers, ttl): as record_dead of _record, but a
--       death that a group can do without does not stop the run: it is spared.  barriers: of the
--       step, from the top; ttl: seconds that the deaths of members are kept
-- record_failure(record, state, number, failure, ttl, ran, barriers): record_death, or with ran
--       record_caught, of a step that goes to `dead`; nothing for the number ''.  For a step
--       without a number it makes the record, as known_state, and keeps it for ttl seconds
-- spare_all(record, barrier): the deaths in the members of a group that can do without them are spared
-- forget_death(dead, id) -> the number of dead members, if there is one less; else nil
-- revive(record, barriers, number): a step that had failed is done
-- revived(record, state, text, barriers, ttl) -> the state after a step is done: one that had
--       failed (see _record) is dead no more, and the other deaths of its group may be spared

-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end

local function spare_of(barrier)
  if string.byte(barrier, 15) ~= 56 or #barrier ~= 36 then return end
  return tonumber(string.sub(barrier, 1, 8), 16)
end

local function any_needs(barriers)
  for _, barrier in ipairs(barriers) do
    if spare_of(barrier) then return true end
  end
  return false
end

local function barriers_in(first, last)
  local found = {}
  for i = first, last - 1 do
    if KEYS[i + 1] == KEYS[i] .. '_ran' then table.insert(found, 1, KEYS[i]) end
  end
  return found
end

local function first_keys(first, n)
  local found = {}
  for i = first, first + n - 1 do found[#found + 1] = KEYS[i] end
  return found
end

local function is_met(barrier)
  local value = redis.pcall('GET', barrier)
  return type(value) ~= 'string' or (tonumber(value) or 1) <= 0
end

local function count_death(dead, id, member, ttl)
  if redis.pcall('HEXISTS', dead, 'j' .. id) == 0 then
    redis.pcall('HSET', dead, 'j' .. id, member)
    if redis.pcall('HINCRBY', dead, 'u' .. member, 1) == 1 then redis.pcall('HINCRBY', dead, 'n', 1) end
  end
  local left, n = redis.pcall('TTL', dead), redis.pcall('HGET', dead, 'n')
  if type(left) == 'number' and left < ttl then redis.pcall('EXPIRE', dead, ttl) end
  return type(n) == 'string' and tonumber(n) or 0
end

local function is_spared(barriers, number, ttl)
  local id = number
  for i, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      if is_met(barrier) then return true end
      if count_death(barrier .. ':d', id, barriers[i - 1] or number, ttl) <= spare then return true end
      -- The group is a dead member of the next one.
      id = barrier
    end
  end
  return false
end

local function record_death(record, state, number, failure, barriers, ttl)
  if not any_needs(barriers) then return record_dead(record, state, number, failure) end
  forget_spared(record, number)
  if state ~= 'cancelled' and is_spared(barriers, number, ttl) then
    redis.pcall('HSET', record .. ':failed', number, failure)
    return spare_failure(record, number)
  end
  record_dead(record, state, number, failure)
end

local function record_failure(record, state, number, failure, ttl, ran, barriers)
  local has_number = tonumber(number)
  if not has_number and number ~= '' then state = state or known_state(record, '', ttl) end
  if not state or number == '' then return end
  if ran then
    record_caught(record, number, failure, ran)
  else
    record_death(record, state, number, failure, barriers, ttl)
  end
  if not has_number then prolong_record(record, state, ttl) end
end

local function spare_all(record, barrier)
  local fields = redis.pcall('HKEYS', barrier .. ':d')
  if fields.err then return end
  for _, field in ipairs(fields) do
    local id = string.match(field, '^j(.*)$')
    if id and #id == 36 then
      spare_all(record, id)
    elseif id then
      spare_failure(record, id)
    end
  end
end

local function forget_death(dead, id)
  local member = redis.pcall('HGET', dead, 'j' .. id)
  if type(member) ~= 'string' then return end
  redis.pcall('HDEL', dead, 'j' .. id)
  if redis.pcall('HINCRBY', dead, 'u' .. member, -1) ~= 0 then return end
  redis.pcall('HDEL', dead, 'u' .. member)
  return redis.pcall('HINCRBY', dead, 'n', -1)
end

local function revive(record, barriers, number)
  local id = number
  for _, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      -- Only then it was too many before, and is not now.
      if forget_death(barrier .. ':d', id) ~= spare then return end
      spare_all(record, barrier)
      id = barrier
    end
  end
end

local function revived(record, state, text, barriers, ttl)
  local number = string.match(text, '^!(%d+)') or string.match(text, '^!(jid:.+)')
  if not number or not any_needs(barriers) then return state end
  revive(record, barriers, number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function read_barrier(barrier)
  local ran = barrier .. '_ran'
  -- MGET returns false for a missing key, and for a key of another type.
  local found = redis.call('MGET', barrier, ran)
  local value, marker = found[1] and whole(found[1]), found[2] and whole(found[2])
  if value and marker then return value, marker end
  for i, key in ipairs({barrier, ran}) do
    local is_number = found[i] and whole(found[i])
    if not is_number and redis.call('EXISTS', key) == 1 then return nil, nil, {'TYPE', key} end
  end
  return nil, nil, {'EXPIRED', barrier}
end

local function disarmed_in(record, barrier, value, marker)
  if marker ~= 0 or value < 1 or record == '' then return end
  local disarmed = record .. ':disarmed'
  if redis.pcall('HEXISTS', disarmed, barrier) == 1 then return disarmed end
end

local function read_any_barrier(barrier, needs)
  local value, marker, wrong = read_barrier(barrier)
  if needs and wrong and wrong[1] == 'EXPIRED' then return 0, 0 end
  return value, marker, wrong
end

local function walk(unit, k, a, elsewhere, record)
  local kinds = ARGV[a]
  local n = #kinds
  local walked = {n = n, first_key = k, counts = {}, released = 0, fire = 0, again = false, new = true}
  for i = 1, n do
    local barrier, kind = KEYS[k + i - 1], string.sub(kinds, i, i)
    local releaser, wrong = false
    if elsewhere then releaser, wrong = checked('GET', barrier .. ':f') end
    if wrong then return nil, wrong end
    if releaser then
      if i == 1 then walked.new = false end
      -- The unit that released the barrier repeats its walk.
      if releaser ~= unit then break end
    else
      local value, marker, counted
      local needs = spare_of(barrier)
      value, marker, wrong = read_any_barrier(barrier, needs)
      if wrong then return nil, wrong end
      local released = value <= 1
      local alone = released and kind == 'f'
      if not alone then counted, wrong = checked('SISMEMBER', barrier .. ':u', unit) end
      if wrong then return nil, wrong end
      local disarmed = disarmed_in(record, barrier, value, marker)
      if disarmed then marker = -1 end
      if needs and marker ~= -1 and counted ~= 1 then
        wrong = denied('SADD', barrier .. ':u', '')
        if wrong then return nil, wrong end
        walked.late = {barrier = barrier, unit = unit}
        break
      end
      if marker ~= -1 or counted == 1 then
        if i == 1 then walked.new = false end
        break
      end
      if released then wrong = denied('SETEX', barrier, '1', '') else wrong = denied('DECRBY', barrier, '1') end
      if wrong then return nil, wrong end
      local count = {barrier = barrier, unit = unit, value = value, released = released, alone = alone}
      count.needs = needs
      count.disarmed = disarmed
      walked.counts[#walked.counts + 1] = count
      if not released then break end
      walked.released = walked.released + 1
    end
    if kind == 'f' then
      walked.fire, walked.again = i, releaser
      break
    end
    if kind == 's' then break end
    unit = barrier
  end
  return walked
end

local function no_walk()
  return {n = 0, first_key = 1, counts = {}, released = 0, fire = 0, again = false, new = true}
end

local function count_units(barrier, units, ttl)
  local set = barrier .. ':u'
  redis.call('DECRBY', barrier, #units)
  redis.call('SADD', set, unpack(units))
  if redis.call('TTL', set) < 0 then
    -- As long as the barrier, which may wait for a child with a long delay.
    redis.call('EXPIRE', set, math.max(ttl, redis.call('TTL', barrier)))
  end
end

local function count_late(late, ttl)
  local set = late.barrier .. ':u'
  redis.call('SADD', set, late.unit)
  if redis.call('TTL', set) < 0 then redis.call('EXPIRE', set, ttl) end
end

local function count_down(count, kept, ttl)
  if count.released then
    -- For members that are late.
    if count.needs then kept = math.max(tonumber(kept), redis.call('TTL', count.barrier)) end
    redis.call('SETEX', count.barrier, kept, count.value == 1 and '0' or count.value - 1)
    redis.call('SETEX', count.barrier .. '_ran', kept, '0')
    if count.disarmed then redis.pcall('HDEL', count.disarmed, count.barrier) end
    if count.needs then
      redis.call('SADD', count.barrier .. ':u', count.unit)
      redis.call('EXPIRE', count.barrier .. ':u', kept)
    elseif not count.alone then
      redis.call('UNLINK', count.barrier .. ':u')
    end
    return
  end
  count_units(count.barrier, {count.unit}, ttl)
end

local function prolong_waiting(walked, ttl)
  for i = walked.released, walked.n - 1 do
    local barrier = KEYS[walked.first_key + i]
    if redis.call('TTL', barrier) < ttl - SLACK then
      redis.call('EXPIRE', barrier, ttl)
      redis.call('EXPIRE', barrier .. '_ran', ttl)
      redis.call('EXPIRE', barrier .. ':u', ttl)
    end
  end
end
-- Fields of a run's memory in the arguments.
--
-- In ARGV, from a on: number of fields, per field: name, JSON
--
-- read_fields(a)            -> the fields, and the index behind them
-- write_fields(key, fields): writes them; the caller has checked the type of the key

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local function read_fields(a)
  local n = tonumber(ARGV[a])
  local last = a + 2 * n
  return {n = n, first = a + 1, last = last}, last + 1
end

local function write_fields(key, fields)
  call_in_slices('HSET', key, ARGV, fields.first, fields.last)
end
-- The plan for the continuation of a step, or for the first jobs of a run: reads it
-- from the arguments, then writes it.
--
-- In KEYS, from k on:  1 per barrier (its id; BARRIER_ran is written, too), then
--                      1 per queue list, then of a fan-out: swf:fanout:ID, 'swf:fanouts'
-- In ARGV, from a on:  number of barriers; per barrier: ttl, value (0 = made released)
--                      number of queues;   per queue: n, n payloads
--                      number of scheduled; per job: score, payload
--                      number of fan-outs (0 or 1), then of it: ID, how many
--                      elements it has, how many queues it goes to, their names
--                      ('' = `schedule`)
--                      A number that is left out at the end is 0.
-- QUEUES and SCHEDULE are the set and the zset that all plans write.
--
-- may_keep(keep, length, name) -> keep if a queue of that length is empty and not paused, else nil
-- read_plan(k, a, keep, parked) -> the plan, or nil and an error reply:
--                      {'TYPE', key} | {'STAGE', key} the list of the fan-out is gone
--                      | an error if the user may not write the jobs
--                      keep: nil, or where to keep the job of a plan that has no other:
--                      {hash, receipt}.  It is kept there, instead of pushed, if
--                      its queue is empty and not in the set PAUSED; then plan.kept is keep
--                      parked: nil, or the record of a paused run, whose jobs are parked
-- park_plan(plan): parks its jobs
-- write_plan(plan): cannot fail, since read_plan has checked all types
--
-- A plan that is too large for one script was staged as a list (fanouts.py).  It is
-- only committed here: the list no longer expires, and its ID is in `swf:fanouts`, so
-- any process can push its jobs (pour.lua).

-- Jobs of a paused run: they are parked, and go on when the run is resumed (unpark.lua).
--
-- swf:parked:ID is a list; what is at its head goes on first.  Each entry has a letter and
-- a name, then a NUL, then a job:
--       qNAME     goes to a queue
--       sSCORE    goes to `schedule`
--       rSCORE    goes to `retry`
--       fID       a staged fan-out, which is committed; the run id in quotes stands for its
--                 jobs, so that they are found
-- swf:flow:ID:disarmed is a hash of the barriers that were disarmed for the plain gem:
-- BARRIER -> name of a queue, a NUL, and the job that fires it later (see hold_barriers.lua)
--
-- PARKED_TTL: seconds for which all of that is kept, as long as `dead` keeps its jobs
-- parked_list(record) -> swf:parked:ID
-- cannot_park(record) -> nil, or the reply if nothing can be parked: {'TYPE', key}, or an error
-- park(record, command, entries): parks them at the end (RPUSH), or at the head (LPUSH)
-- split_entry(entry) -> letter and name, job


local PARKED_TTL = 15552000

local function parked_list(record)
  return 'swf:parked:' .. string.sub(record, 10)
end

local function cannot_park(record)
  local list = parked_list(record)
  if not type_is(list, 'list') then return {'TYPE', list} end
  return denied('RPUSH', list, '') or denied('LPUSH', list, '') or denied('EXPIRE', list, '1')
end

local function park(record, command, entries)
  local list = parked_list(record)
  call_in_slices(command, list, entries, 1, #entries)
  redis.call('EXPIRE', list, PARKED_TTL)
end

local function split_entry(entry)
  local at = string.find(entry, '\0', 1, true) or #entry + 1
  return string.sub(entry, 1, 1), string.sub(entry, 2, at - 1), string.sub(entry, at + 1)
end

local QUEUES, SCHEDULE, PAUSED = 'queues', 'schedule', 'paused'

local function may_keep(keep, length, name)
  -- A key of another type pauses nothing.
  if keep and length == 0 and redis.pcall('SISMEMBER', PAUSED, name) ~= 1 then return keep end
end

local function read_plan(k, a, keep, parked)
  local refused = parked and cannot_park(parked)
  if refused then return nil, refused end
  if parked then keep = nil end
  local n = tonumber(ARGV[a] or 0); a = a + 1
  local plan = {barriers = n, barrier_key = k, barrier_argument = a, queues = {}, parked = parked}
  k = k + n; a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  for i = 1, n do
    local key, count = KEYS[k], tonumber(ARGV[a])
    local name = string.sub(key, 7)
    local length, listed, wrong
    length, wrong = checked('LLEN', key)
    if wrong then return nil, wrong end
    plan.kept = may_keep(keep, length, name)
    if plan.kept then
      wrong = denied('HSET', keep.hash, keep.receipt, '')
    else
      listed, wrong = checked('SISMEMBER', QUEUES, name)
      if listed == 0 then wrong = denied('SADD', QUEUES, name) end
      wrong = wrong or denied('LPUSH', key, '')
    end
    if wrong then return nil, wrong end
    plan.queues[i] = {key = key, name = name, first = a + 1, last = a + count, listed = listed == 1}
    k = k + 1; a = a + 1 + count
  end
  n = tonumber(ARGV[a] or 0); a = a + 1
  plan.first_scheduled, plan.last_scheduled = a, a + 2 * n - 1
  if n > 0 then
    if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
    local wrong = denied('ZADD', SCHEDULE, '0', '')
    if wrong then return nil, wrong end
  end
  a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  if n > 0 then
    local list, fanouts = KEYS[k], KEYS[k + 1]
    if not type_is(list, 'list') then return nil, {'TYPE', list} end
    if redis.call('LLEN', list) ~= tonumber(ARGV[a + 1]) then return nil, {'STAGE', list} end
    if not type_is(fanouts, 'zset') then return nil, {'TYPE', fanouts} end
    for i = a + 3, a + 2 + tonumber(ARGV[a + 2]) do
      local name = ARGV[i]
      if name == '' then
        if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
      else
        local queue = 'queue:' .. name
        if not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
        if not type_is(queue, 'list') then return nil, {'TYPE', queue} end
      end
    end
    plan.fanout = {list = list, fanouts = fanouts, now = redis.call('TIME')[1], id = ARGV[a]}
  end
  return plan
end

local function park_plan(plan)
  local entries = {}
  for _, queue in ipairs(plan.queues) do
    for i = queue.first, queue.last do entries[#entries + 1] = 'q' .. queue.name .. '\0' .. ARGV[i] end
  end
  for i = plan.first_scheduled, plan.last_scheduled, 2 do
    entries[#entries + 1] = 's' .. ARGV[i] .. '\0' .. ARGV[i + 1]
  end
  if plan.fanout then
    redis.call('EXPIRE', plan.fanout.list, PARKED_TTL)
    entries[#entries + 1] = 'f' .. plan.fanout.id .. '\0"' .. string.sub(plan.parked, 10) .. '"'
  end
  park(plan.parked, 'RPUSH', entries)
end

local function write_plan(plan)
  local k, a = plan.barrier_key, plan.barrier_argument
  for _ = 1, plan.barriers do
    local ttl = plan.parked and math.max(PARKED_TTL, tonumber(ARGV[a])) or ARGV[a]
    redis.call('SETEX', KEYS[k], ttl, ARGV[a + 1])
    redis.call('SETEX', KEYS[k] .. '_ran', ttl, ARGV[a + 1] == '0' and '0' or '-1')
    k = k + 1; a = a + 2
  end
  if plan.parked then return park_plan(plan) end
  for _, queue in ipairs(plan.queues) do
    if plan.kept then
      redis.call('HSET', plan.kept.hash, plan.kept.receipt, ARGV[queue.first])
    else
      if not queue.listed then redis.call('SADD', QUEUES, queue.name) end
      call_in_slices('LPUSH', queue.key, ARGV, queue.first, queue.last)
    end
  end
  call_in_slices('ZADD', SCHEDULE, ARGV, plan.first_scheduled, plan.last_scheduled)
  if plan.fanout then
    redis.call('PERSIST', plan.fanout.list)
    redis.call('ZADD', plan.fanout.fanouts, plan.fanout.now, plan.fanout.id)
  end
end

local in_flight, memory, marker, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local receipt, unit, ttl, memory_ttl, text = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local numbered, total, skipped, step, added = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local fields, a = read_fields(11)
local top, callbacks = ARGV[a], tonumber(ARGV[a + 1])

-- Reads.
local found, wrong = checked('HEXISTS', in_flight, receipt)
if wrong then return wrong end
if found == 0 then return {'GONE'} end
local state = record_state(record)
local cancelled, parked = state == 'cancelled', state == 'paused' and record or nil
local walked = no_walk()
if not cancelled and top ~= '' then
  walked, wrong = walk(unit, 5, a, false, record)
  if not walked then return wrong end
end
if fields.n > 0 then
  if not type_is(memory, 'hash') then return {'TYPE', memory} end
  wrong = denied('HSET', memory, '', '')
  if wrong then return wrong end
end
local starts = not cancelled and walked.new and (marker == '' or redis.call('EXISTS', marker) == 0)
local plan
if starts then
  if numbered ~= '' then
    local now = redis.pcall('HGET', record, 'total')
    if now ~= numbered then return {'TOTAL', type(now) == 'string' and now or ''} end
  end
  wrong = marker ~= '' and denied('SET', marker, '1') or top ~= '' and denied('SADD', KEYS[5] .. ':u', '') or nil
  if wrong then return wrong end
  plan, wrong = read_plan(5 + callbacks, a + 2, nil, parked)
  if not plan then return wrong end
end

-- Writes.  HDEL comes first: Redis allows it when it is out of memory, and after it also
-- the others.
redis.call('HDEL', in_flight, receipt)
if parked then ttl = math.max(ttl, PARKED_TTL) end
write_fields(memory, fields)
if plan then
  if marker ~= '' then redis.call('SET', marker, '1', 'EX', RELEASED_TTL) end
  if top == 'f' then
    redis.call('SETEX', KEYS[5], RELEASED_TTL, '0')
    redis.call('SETEX', KEYS[5] .. '_ran', RELEASED_TTL, '0')
    local disarmed = walked.counts[1] and walked.counts[1].disarmed
    if disarmed then redis.pcall('HDEL', disarmed, KEYS[5]) end
  elseif top ~= '' then
    redis.call('SADD', KEYS[5] .. ':u', unit)
    outlive(KEYS[5] .. ':u', math.max(ttl, redis.call('TTL', KEYS[5])))
  end
  write_plan(plan)
end
for i = top == 'f' and 6 or 5, 4 + callbacks do
  for _, suffix in ipairs({'', '_ran', ':u'}) do outlive(KEYS[i] .. suffix, ttl) end
end
if memory ~= '' then outlive(memory, math.max(ttl, memory_ttl)) end
state = state or known_state(record, text, ttl)
if state then
  if plan and numbered ~= '' then
    redis.pcall('HSET', record, 'total', total, 'added', '1')
    if skipped ~= '0' then redis.pcall('HINCRBY', record, 'skipped', skipped) end
    redis.pcall('HSET', record .. ':added', step, added)
    local left = redis.pcall('TTL', record)
    if type(left) == 'number' then outlive(record .. ':added', left) end
  end
  state = record_steps(record, state, {text}, ttl)
  if had_failed(text) then state = revived(record, state, text, first_keys(5, callbacks), ttl) end
  if plan then prolong_record(record, state, ttl) end
end
return {cancelled and 'CANCELLED' or 'DONE'}
-- @file requeue.lua
-- Moves jobs in flight that did not run back to the end of their queue that is fetched
-- first.
--
-- KEYS: in-flight hash, queue list
-- ARGV: receipts, in the order they were fetched
-- Returns: number of jobs that were moved (without those no longer in flight); an error
--       if a key has another type: nothing was written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- type_error(key, wanted) -> the error reply that names a key of another type

local function type_error(key, wanted)
  local found = redis.call('TYPE', key).ok
  return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. found .. ', not a ' .. wanted)
end
-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

for i, kind in ipairs({'hash', 'list'}) do
  if not type_is(KEYS[i], kind) then return type_error(KEYS[i], kind) end
end
local receipts, payloads = {}, {}
for i = #ARGV, 1, -1 do
  local payload = redis.call('HGET', KEYS[1], ARGV[i])
  if payload then
    receipts[#receipts + 1] = ARGV[i]
    payloads[#payloads + 1] = payload
  end
end
local refused = denied('RPUSH', KEYS[2], '')
if refused then return refused end
call_in_slices('HDEL', KEYS[1], receipts, 1, #receipts)
call_in_slices('RPUSH', KEYS[2], payloads, 1, #payloads)
return #receipts
-- @file signal.lua
-- Sends a signal to a run: keeps it, and moves the steps that wait for it from `schedule`
-- to their queues.  Safe to send twice.
--
-- KEYS: record (see _record), swf:run:ID, swf:signals:RUN, swf:waiting:RUN, 'schedule',
--       'queues'
-- ARGV: name of the signal, its data, seconds that it is kept at least
-- Returns: {'DONE', number of steps that were moved} | {'ENDED'} the run is done, or
--       cancelled: nothing written | {'UNKNOWN'} there is no such run | {'TYPE', key}
--       nothing written
--
-- See wait.lua for the hashes.  A step that left `schedule` in another way, since its time
-- is over, since its run is paused, or by hand, sees the signal when it runs.

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end

local record, run, signals, waiting, schedule, queues = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local name, data, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- Reads.
local state = record_state(record)
if state == 'done' or state == 'cancelled' then return {'ENDED'} end
if not state and redis.call('EXISTS', run) == 0 then return {'UNKNOWN'} end
for key, kind in pairs({[signals] = 'hash', [waiting] = 'hash', [schedule] = 'zset', [queues] = 'set'}) do
  if not type_is(key, kind) then return {'TYPE', key} end
end
local steps, entries = {}, redis.call('HGETALL', waiting)
for i = 1, #entries, 2 do
  if string.sub(entries[i], 1, #name + 1) == name .. '\n' then
    local queue, payload = string.match(entries[i + 1], '^([^\n]*)\n(.*)$')
    if queue then
      local list = 'queue:' .. queue
      if not type_is(list, 'list') then return {'TYPE', list} end
      local wrong = denied('LPUSH', list, '') or denied('SADD', queues, '')
      if wrong then return wrong end
      steps[#steps + 1] = {field = entries[i], queue = queue, list = list, payload = payload}
    end
  end
end
local wrong = denied('HSET', signals, '', '') or denied('EXPIRE', signals, '1') or denied('HDEL', signals, '')
  or denied('ZREM', schedule, '') or denied('HDEL', waiting, '')
if wrong then return wrong end

-- Writes.  HDEL comes first: Redis allows it when it is out of memory, and after it also
-- the others.
redis.call('HDEL', signals, name)
redis.call('HSET', signals, name, data)
local left = redis.pcall('TTL', record)
outlive(signals, math.max(ttl, type(left) == 'number' and left or 0))
local moved = 0
for _, step in ipairs(steps) do
  redis.call('HDEL', waiting, step.field)
  if redis.call('ZREM', schedule, step.payload) == 1 then
    redis.call('SADD', queues, step.queue)
    redis.call('LPUSH', step.list, step.payload)
    moved = moved + 1
  end
end
return {'DONE', moved}
-- @file start.lua
-- Starts a run: writes its marker, its initial memory, its barriers and first jobs.
-- The marker makes it safe to send twice, and safe to call twice.
--
-- KEYS: swf:run:ID, memory hash, record (see _record), the plan's (see _plan)
-- ARGV: ttl of the marker in seconds, ttl of the memory in seconds,
--       the fields' (see _fields), the record's (see _new_record), the plan's
-- Returns: {'DONE'} | {'STARTED'} it was started before, nothing written
--       | {'TYPE', key} | {'STAGE', key} nothing written: stage the plan again
--       | {'TAKEN', ID} nothing written: that run has the unique key, and lives

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Fields of a run's memory in the arguments.
--
-- In ARGV, from a on: number of fields, per field: name, JSON
--
-- read_fields(a)            -> the fields, and the index behind them
-- write_fields(key, fields): writes them; the caller has checked the type of the key

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local function read_fields(a)
  local n = tonumber(ARGV[a])
  local last = a + 2 * n
  return {n = n, first = a + 1, last = last}, last + 1
end

local function write_fields(key, fields)
  call_in_slices('HSET', key, ARGV, fields.first, fields.last)
end
-- The plan for the continuation of a step, or for the first jobs of a run: reads it
-- from the arguments, then writes it.
--
-- In KEYS, from k on:  1 per barrier (its id; BARRIER_ran is written, too), then
--                      1 per queue list, then of a fan-out: swf:fanout:ID, 'swf:fanouts'
-- In ARGV, from a on:  number of barriers; per barrier: ttl, value (0 = made released)
--                      number of queues;   per queue: n, n payloads
--                      number of scheduled; per job: score, payload
--                      number of fan-outs (0 or 1), then of it: ID, how many
--                      elements it has, how many queues it goes to, their names
--                      ('' = `schedule`)
--                      A number that is left out at the end is 0.
-- QUEUES and SCHEDULE are the set and the zset that all plans write.
--
-- may_keep(keep, length, name) -> keep if a queue of that length is empty and not paused, else nil
-- read_plan(k, a, keep, parked) -> the plan, or nil and an error reply:
--                      {'TYPE', key} | {'STAGE', key} the list of the fan-out is gone
--                      | an error if the user may not write the jobs
--                      keep: nil, or where to keep the job of a plan that has no other:
--                      {hash, receipt}.  It is kept there, instead of pushed, if
--                      its queue is empty and not in the set PAUSED; then plan.kept is keep
--                      parked: nil, or the record of a paused run, whose jobs are parked
-- park_plan(plan): parks its jobs
-- write_plan(plan): cannot fail, since read_plan has checked all types
--
-- A plan that is too large for one script was staged as a list (fanouts.py).  It is
-- only committed here: the list no longer expires, and its ID is in `swf:fanouts`, so
-- any process can push its jobs (pour.lua).

-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- Jobs of a paused run: they are parked, and go on when the run is resumed (unpark.lua).
--
-- swf:parked:ID is a list; what is at its head goes on first.  Each entry has a letter and
-- a name, then a NUL, then a job:
--       qNAME     goes to a queue
--       sSCORE    goes to `schedule`
--       rSCORE    goes to `retry`
--       fID       a staged fan-out, which is committed; the run id in quotes stands for its
--                 jobs, so that they are found
-- swf:flow:ID:disarmed is a hash of the barriers that were disarmed for the plain gem:
-- BARRIER -> name of a queue, a NUL, and the job that fires it later (see hold_barriers.lua)
--
-- PARKED_TTL: seconds for which all of that is kept, as long as `dead` keeps its jobs
-- parked_list(record) -> swf:parked:ID
-- cannot_park(record) -> nil, or the reply if nothing can be parked: {'TYPE', key}, or an error
-- park(record, command, entries): parks them at the end (RPUSH), or at the head (LPUSH)
-- split_entry(entry) -> letter and name, job


local PARKED_TTL = 15552000

local function parked_list(record)
  return 'swf:parked:' .. string.sub(record, 10)
end

local function cannot_park(record)
  local list = parked_list(record)
  if not type_is(list, 'list') then return {'TYPE', list} end
  return denied('RPUSH', list, '') or denied('LPUSH', list, '') or denied('EXPIRE', list, '1')
end

local function park(record, command, entries)
  local list = parked_list(record)
  call_in_slices(command, list, entries, 1, #entries)
  redis.call('EXPIRE', list, PARKED_TTL)
end

local function split_entry(entry)
  local at = string.find(entry, '\0', 1, true) or #entry + 1
  return string.sub(entry, 1, 1), string.sub(entry, 2, at - 1), string.sub(entry, at + 1)
end

local QUEUES, SCHEDULE, PAUSED = 'queues', 'schedule', 'paused'

local function may_keep(keep, length, name)
  -- A key of another type pauses nothing.
  if keep and length == 0 and redis.pcall('SISMEMBER', PAUSED, name) ~= 1 then return keep end
end

local function read_plan(k, a, keep, parked)
  local refused = parked and cannot_park(parked)
  if refused then return nil, refused end
  if parked then keep = nil end
  local n = tonumber(ARGV[a] or 0); a = a + 1
  local plan = {barriers = n, barrier_key = k, barrier_argument = a, queues = {}, parked = parked}
  k = k + n; a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  for i = 1, n do
    local key, count = KEYS[k], tonumber(ARGV[a])
    local name = string.sub(key, 7)
    local length, listed, wrong
    length, wrong = checked('LLEN', key)
    if wrong then return nil, wrong end
    plan.kept = may_keep(keep, length, name)
    if plan.kept then
      wrong = denied('HSET', keep.hash, keep.receipt, '')
    else
      listed, wrong = checked('SISMEMBER', QUEUES, name)
      if listed == 0 then wrong = denied('SADD', QUEUES, name) end
      wrong = wrong or denied('LPUSH', key, '')
    end
    if wrong then return nil, wrong end
    plan.queues[i] = {key = key, name = name, first = a + 1, last = a + count, listed = listed == 1}
    k = k + 1; a = a + 1 + count
  end
  n = tonumber(ARGV[a] or 0); a = a + 1
  plan.first_scheduled, plan.last_scheduled = a, a + 2 * n - 1
  if n > 0 then
    if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
    local wrong = denied('ZADD', SCHEDULE, '0', '')
    if wrong then return nil, wrong end
  end
  a = a + 2 * n
  n = tonumber(ARGV[a] or 0); a = a + 1
  if n > 0 then
    local list, fanouts = KEYS[k], KEYS[k + 1]
    if not type_is(list, 'list') then return nil, {'TYPE', list} end
    if redis.call('LLEN', list) ~= tonumber(ARGV[a + 1]) then return nil, {'STAGE', list} end
    if not type_is(fanouts, 'zset') then return nil, {'TYPE', fanouts} end
    for i = a + 3, a + 2 + tonumber(ARGV[a + 2]) do
      local name = ARGV[i]
      if name == '' then
        if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
      else
        local queue = 'queue:' .. name
        if not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
        if not type_is(queue, 'list') then return nil, {'TYPE', queue} end
      end
    end
    plan.fanout = {list = list, fanouts = fanouts, now = redis.call('TIME')[1], id = ARGV[a]}
  end
  return plan
end

local function park_plan(plan)
  local entries = {}
  for _, queue in ipairs(plan.queues) do
    for i = queue.first, queue.last do entries[#entries + 1] = 'q' .. queue.name .. '\0' .. ARGV[i] end
  end
  for i = plan.first_scheduled, plan.last_scheduled, 2 do
    entries[#entries + 1] = 's' .. ARGV[i] .. '\0' .. ARGV[i + 1]
  end
  if plan.fanout then
    redis.call('EXPIRE', plan.fanout.list, PARKED_TTL)
    entries[#entries + 1] = 'f' .. plan.fanout.id .. '\0"' .. string.sub(plan.parked, 10) .. '"'
  end
  park(plan.parked, 'RPUSH', entries)
end

local function write_plan(plan)
  local k, a = plan.barrier_key, plan.barrier_argument
  for _ = 1, plan.barriers do
    local ttl = plan.parked and math.max(PARKED_TTL, tonumber(ARGV[a])) or ARGV[a]
    redis.call('SETEX', KEYS[k], ttl, ARGV[a + 1])
    redis.call('SETEX', KEYS[k] .. '_ran', ttl, ARGV[a + 1] == '0' and '0' or '-1')
    k = k + 1; a = a + 2
  end
  if plan.parked then return park_plan(plan) end
  for _, queue in ipairs(plan.queues) do
    if plan.kept then
      redis.call('HSET', plan.kept.hash, plan.kept.receipt, ARGV[queue.first])
    else
      if not queue.listed then redis.call('SADD', QUEUES, queue.name) end
      call_in_slices('LPUSH', queue.key, ARGV, queue.first, queue.last)
    end
  end
  call_in_slices('ZADD', SCHEDULE, ARGV, plan.first_scheduled, plan.last_scheduled)
  if plan.fanout then
    redis.call('PERSIST', plan.fanout.list)
    redis.call('ZADD', plan.fanout.fanouts, plan.fanout.now, plan.fanout.id)
  end
end
-- The record of a run that starts.
--
-- In ARGV, from a on: state (`running`, or `done` if no step is to run), epoch seconds of
--       the start, seconds that it lives, number of steps, the fields' (see _fields), number of further lists that
--       name the run, and their names: swf:flows:NAME, the unique key of the run ('' = none),
--       seconds until its deadline ('' = none), '1' if the run must not start without a record,
--       what it is started with ('' = it cannot be repeated)
--
-- read_record(a) -> what make_record needs, and the index behind it
-- holds_key(record, holder) -> true if the holder of a unique key is another run that lives
-- refused_start(record, new) -> nil, or a reply: {'TAKEN', ID of the run that has the unique key,
--       and lives} | {'TYPE', key} | an error if the user may not write what the run needs
-- make_record(record, new): writes it

-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end

local function read_record(a)
  local new = {state = ARGV[a], started = ARGV[a + 1], ttl = tonumber(ARGV[a + 2]), total = tonumber(ARGV[a + 3])}
  new.fields, a = read_fields(a + 4)
  new.first_list, new.last_list = a + 1, a + tonumber(ARGV[a])
  a = new.last_list + 1
  new.unique, new.deadline, new.needed, new.start = ARGV[a], ARGV[a + 1], ARGV[a + 2] == '1', ARGV[a + 3]
  return new, a + 4
end

local function holds_key(record, holder)
  if not holder or holder == string.sub(record, 10) then return false end
  local state = record_state('swf:flow:' .. holder)
  return state and state ~= 'done' and state ~= 'cancelled'
end

local function refused_start(record, new)
  if new.unique ~= '' then
    local key = 'swf:unique:' .. new.unique
    local holder, wrong = checked('GET', key)
    if wrong then return wrong end
    if holds_key(record, holder) then return {'TAKEN', holder} end
    wrong = denied('SET', key, '')
    if wrong then return wrong end
  end
  if new.deadline ~= '' then
    if not type_is('swf:deadlines', 'zset') then return {'TYPE', 'swf:deadlines'} end
    local wrong = denied('ZADD', 'swf:deadlines', '0', '')
    if wrong then return wrong end
  end
  if not new.needed then return end
  if not type_is(record, 'hash') then return {'TYPE', record} end
  return denied('HSET', record, '', '')
end

local function make_record(record, new)
  local id, now, ttl = string.sub(record, 10), new.started, new.ttl
  local first = {record, 'state', 'running', 'started', now, 'total', new.total}
  for i = new.fields.first, new.fields.last do first[#first + 1] = ARGV[i] end
  local made = redis.pcall('HSET', unpack(first))
  -- A user of before, who may not write records, starts runs without them.
  if type(made) ~= 'number' then return end
  if made < 3 + new.fields.n then
    -- A run of the same id has left one.
    redis.pcall('UNLINK', record, record .. ':times', record .. ':done', record .. ':failed')
    redis.pcall('HSET', unpack(first))
  end
  redis.pcall('HSET', record .. ':times', '0', '')
  if new.total >= 1000 then
    redis.pcall('BITFIELD', record .. ':done', 'SET', 'u1', new.total, 0)
    redis.pcall('EXPIRE', record .. ':done', ttl)
  end
  redis.pcall('EXPIRE', record, ttl)
  redis.pcall('EXPIRE', record .. ':times', ttl)
  add_to_list('running', id, now, ttl)
  for i = new.first_list, new.last_list do
    add_to_list(ARGV[i], id, now, ttl)
    redis.pcall('ZREMRANGEBYRANK', 'swf:flows:' .. ARGV[i], 0, -MOST_LISTED - 1)
  end
  if new.start ~= '' then redis.pcall('SET', record .. ':start', new.start, 'EX', ttl) end
  if new.unique ~= '' then redis.pcall('SET', 'swf:unique:' .. new.unique, id, 'EX', math.max(ttl, UNIQUE_TTL)) end
  if new.deadline ~= '' then
    redis.pcall('ZADD', 'swf:deadlines', string.format('%.3f', tonumber(seconds_now()) + tonumber(new.deadline)), id)
    outlive('swf:deadlines', math.ceil(tonumber(new.deadline)) + ttl)
  end
  if new.state == 'done' then finish_record(record, 'running', '') end
end

local marker, memory, record = KEYS[1], KEYS[2], KEYS[3]
local fields, a = read_fields(3)
local made
made, a = read_record(a)

if redis.call('EXISTS', marker) == 1 then return {'STARTED'} end
local wrong = refused_start(record, made)
if wrong then return wrong end
if fields.n > 0 and not type_is(memory, 'hash') then return {'TYPE', memory} end
local plan
plan, wrong = read_plan(4, a)
if not plan then return wrong end

redis.call('SET', marker, '1', 'EX', ARGV[1])
write_fields(memory, fields)
if fields.n > 0 then redis.call('EXPIRE', memory, ARGV[2]) end
write_plan(plan)
if record ~= '' then make_record(record, made) end
return {'DONE'}
-- @file store_callbacks.lua
-- Stores the steps of a chain once, for payloads that refer to them.
--
-- KEYS: swf:callbacks:SHA256, a hash index -> SHA256 of the next value (empty
--       at the end), ':', the step's JSON; 'largest' -> size of the largest value
-- ARGV: ttl in seconds, the values from index 0 on
-- Returns: 1, or 0 if they were stored before (then they are prolonged to the ttl)

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end
-- Extends lifetimes, and never shortens them.  A missing key stays missing.
--
-- prolong(key, ttl): to at least ttl seconds.  A key without an expiry gets one, since
--       all keys of a run expire
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but
--       leaves a key without an expiry unchanged, and one whose lifetime is at most
--       slack seconds shorter than ttl

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end

local key, ttl = KEYS[1], tonumber(ARGV[1])
if prolong_volatile(key, ttl, 0) then return 0 end
local fields, largest = {}, 0
for i = 2, #ARGV do
  largest = math.max(largest, #ARGV[i])
  fields[#fields + 1] = i - 2
  fields[#fields + 1] = ARGV[i]
end
fields[#fields + 1] = 'largest'
fields[#fields + 1] = largest
call_in_slices('HSET', key, fields, 1, #fields)
redis.call('EXPIRE', key, ttl)
return 1
-- @file trial.lua
-- Moves one suspect of a dead worker (BASE:I!, see recover.lua) into flight here, and
-- makes sure that no other suspect of its queue runs at the same time.
--
-- Call it at each beat for the dead members that hold suspects of a queue that
-- this process consumes, and again when a trial has ended.  The job then runs like
-- any other that was fetched ahead: begin.lua marks it as begun, and recover.lua
-- counts it if it kills the worker.
--
-- KEYS: swf:workers, in-flight hash of the dead member, in-flight hash of the
--       own member, swf:trial:QUEUE, 'paused'
-- ARGV: dead member, own member, queue name, seconds without a beat that make a
--       worker dead, a receipt base of this process that is used for nothing
--       else, seconds after which a running trial no longer blocks another one
-- Returns: {'TRIAL', payload} in flight as BASE:1? | {'WAIT'} another trial
--       runs, or the queue is paused | {'NONE'} no suspect, the member lives, or
--       the own one is not registered | {'TYPE', key} nothing written
--
-- Sent twice with the same base it returns the same.  swf:trial:QUEUE holds
-- 'TIME RECEIPT MEMBER' of the last trial, which runs while the job is in flight.

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end

for i, kind in ipairs({'zset', 'hash', 'hash'}) do
  if not type_is(KEYS[i], kind) then return {'TYPE', KEYS[i]} end
end
local receipt = ARGV[5] .. ':1'
local before = redis.call('HGET', KEYS[3], receipt .. '?')
if before then return {'TRIAL', before} end

local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or now - tonumber(score) < tonumber(ARGV[4]) then return {'NONE'} end
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return {'NONE'} end
if redis.pcall('SISMEMBER', KEYS[5], ARGV[3]) == 1 then return {'WAIT'} end

local running = redis.pcall('GET', KEYS[4])
if type(running) == 'string' then
  local began, of, member = string.match(running, '^(%S+) (%S+) (.*)$')
  local age = began and tonumber(began) and now - tonumber(began)
  if age and age >= 0 and age < tonumber(ARGV[6]) then
    for _, state in ipairs({'', '?'}) do
      if redis.pcall('HEXISTS', 'swf:inflight:' .. member, of .. state) == 1 then return {'WAIT'} end
    end
  end
end

local suspect
for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
  if string.sub(name, -1) == '!' and (not suspect or name < suspect) then suspect = name end
end
if not suspect then return {'NONE'} end
local payload = redis.call('HGET', KEYS[2], suspect)

local refused = denied('HSET', KEYS[3], receipt, '') or denied('SET', KEYS[4], '')
if refused then return refused end
redis.call('HDEL', KEYS[2], suspect)
redis.call('HSET', KEYS[3], receipt .. '?', payload)
redis.call('SET', KEYS[4], string.format('%.6f ', now) .. receipt .. ' ' .. ARGV[2], 'EX', ARGV[6])
if redis.call('HLEN', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return {'TRIAL', payload}
-- @file unpark.lua
-- Puts the next parked jobs of a run where they belong, in their order.  Each call moves
-- entries from the list to their places, so it may be sent twice, and by any number of
-- processes at the same time.
--
-- KEYS: record (see _record), 'queues', 'schedule', 'retry', 'swf:fanouts'
-- ARGV: maximum entries, bytes after which no further entry is read
-- Returns: {'MORE', ID of each fan-out that was committed ...} | {'DONE', the same} nothing
--       is left, or the run is paused or cancelled | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end
-- Jobs of a paused run: they are parked, and go on when the run is resumed (unpark.lua).
--
-- swf:parked:ID is a list; what is at its head goes on first.  Each entry has a letter and
-- a name, then a NUL, then a job:
--       qNAME     goes to a queue
--       sSCORE    goes to `schedule`
--       rSCORE    goes to `retry`
--       fID       a staged fan-out, which is committed; the run id in quotes stands for its
--                 jobs, so that they are found
-- swf:flow:ID:disarmed is a hash of the barriers that were disarmed for the plain gem:
-- BARRIER -> name of a queue, a NUL, and the job that fires it later (see hold_barriers.lua)
--
-- PARKED_TTL: seconds for which all of that is kept, as long as `dead` keeps its jobs
-- parked_list(record) -> swf:parked:ID
-- cannot_park(record) -> nil, or the reply if nothing can be parked: {'TYPE', key}, or an error
-- park(record, command, entries): parks them at the end (RPUSH), or at the head (LPUSH)
-- split_entry(entry) -> letter and name, job

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local PARKED_TTL = 15552000

local function parked_list(record)
  return 'swf:parked:' .. string.sub(record, 10)
end

local function cannot_park(record)
  local list = parked_list(record)
  if not type_is(list, 'list') then return {'TYPE', list} end
  return denied('RPUSH', list, '') or denied('LPUSH', list, '') or denied('EXPIRE', list, '1')
end

local function park(record, command, entries)
  local list = parked_list(record)
  call_in_slices(command, list, entries, 1, #entries)
  redis.call('EXPIRE', list, PARKED_TTL)
end

local function split_entry(entry)
  local at = string.find(entry, '\0', 1, true) or #entry + 1
  return string.sub(entry, 1, 1), string.sub(entry, 2, at - 1), string.sub(entry, at + 1)
end

local record, queues, fanouts = KEYS[1], KEYS[2], KEYS[5]
local sets = {s = KEYS[3], r = KEYS[4]}
local list, state = parked_list(record), record_state(record)
if state == 'paused' or state == 'cancelled' then return {'DONE'} end

-- Reads.
if not type_is(list, 'list') then return {'TYPE', list} end
for i, kind in ipairs({'set', 'zset', 'zset', 'zset'}) do
  if not type_is(KEYS[i + 1], kind) then return {'TYPE', KEYS[i + 1]} end
end
local refused = denied('SADD', queues, '') or denied('ZADD', sets.s, '0', '') or denied('ZADD', sets.r, '0', '')
  or denied('ZADD', fanouts, '0', '')
if refused then return refused end
local entries, bytes, most, most_bytes, known = {}, 0, tonumber(ARGV[1]), tonumber(ARGV[2]), {}
while #entries < most and bytes < most_bytes do
  local wanted = math.min(50, most - #entries)
  local found = redis.call('LRANGE', list, #entries, #entries + wanted - 1)
  for _, entry in ipairs(found) do
    local letter, name, job = split_entry(entry)
    local queue = letter == 'q' and 'queue:' .. name
    if queue and not known[queue] then
      if not type_is(queue, 'list') then return {'TYPE', queue} end
      refused = denied('LPUSH', queue, '')
      if refused then return refused end
      known[queue] = true
    end
    refused = letter == 'f' and denied('PERSIST', 'swf:fanout:' .. name)
    if refused then return refused end
    bytes = bytes + #entry
    entries[#entries + 1] = {letter = letter, name = name, job = job}
  end
  if #found < wanted then break end
end
if #entries == 0 then return {'DONE'} end

-- Writes.  Redis allows LTRIM when it is out of memory, and after it also the rest.
redis.call('LTRIM', list, #entries, -1)
local reply = {redis.call('EXISTS', list) == 1 and 'MORE' or 'DONE'}
for _, entry in ipairs(entries) do
  if entry.letter == 'q' then
    redis.call('SADD', queues, entry.name)
    redis.call('LPUSH', 'queue:' .. entry.name, entry.job)
  elseif entry.letter == 'f' then
    redis.call('PERSIST', 'swf:fanout:' .. entry.name)
    redis.call('ZADD', fanouts, redis.call('TIME')[1], entry.name)
    reply[#reply + 1] = entry.name
  else
    redis.call('ZADD', sets[entry.letter], entry.name, entry.job)
  end
end
return reply
-- @file unpause.lua
-- Ends the pause of a run: its record says so, and from now on nothing of it is parked.
-- Safe to send twice.
--
-- The run stays in the list that workers read (see _listing).  They ask for its state.
--
-- KEYS: record (see _record)
-- ARGV: none
-- Returns: {'DONE'} | {'ENDED', state} the run is not paused: nothing written
--       | {'UNKNOWN'} there is no record | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
-- The record of a run, which `Runs` reads: its state, and the steps that are done.
--
-- In KEYS: swf:flow:ID, a hash ('' = the run has no record).  Its other keys have names
--       made of it: swf:flow:ID:times, a hash of the steps that are done, for numbers
--       below 1,000; swf:flow:ID:done, a bitmap of the others; swf:flow:ID:failed, a hash
--       of the steps that are dead; swf:flow:ID:added, a hash of the trees that replaced
--       steps; swf:flow:ID:start, what a run that can be repeated was started with.  The
--       sorted sets swf:flows:STATE hold the ids of runs
--
-- In ARGV, a text of each step that is done: '' if it has no number; its number, if it is a
--       bit; else its number, a space, and its times.  '!' before it: it had failed; a step
--       without a number then has 'jid:' and its jid, under which its failure is recorded
--
-- PARTS: suffixes of the keys
-- END_FIELDS: what is read at the end of a run, and its state
-- UNIQUE_TTL: seconds that a unique key lives at least: longer than the record of its run
-- MOST_LISTED: number of runs in a list of those that have ended, or that have a template
--       or a tag
-- outlive(key, ttl): prolongs a key to about ttl seconds, unless it lives longer
-- seconds_now() -> epoch seconds with milliseconds, as text
-- record_state(record) -> the state; nil if there is no record, or if it cannot be read
-- record_end(record) -> the same, and the fields that the end of the run needs, read with it
-- known_state(record, text, ttl) -> the state; makes the record of a run that Ruby started,
--       whose steps have no number, to live for ttl seconds
-- had_failed(text) -> true if the text is of a step that had failed
-- mark_done(record, text): marks a step that had not failed as done
-- set_bits(key, numbers): sets bits of a bitmap, some hundreds with each command
-- record_steps(record, state, texts, ttl) -> the state after steps are done; keeps the
--       record for ttl seconds, now and then
-- record_dead(record, state, number, failure): records the death of a step, and pushes
--       on_failure, if the record has it.  number: 'jid:' and the jid if it has none
-- record_caught(record, number, failure, ran): a step is dead, and others take its place: ran
--       is the number of steps that run in its place.  The run does not wait for it
-- is_marked_spared(failure) -> true if the run does not wait for the step of this failure, since its group
--       needs some of its members only (see _need)
-- spare_failure(record, number): marks a failure so
-- forget_spared(record, number): the opposite, before the failure is written anew or removed
-- add_to_list(name, id, started, ttl): adds the run to swf:flows:NAME, which lives for ttl
--       seconds at least
-- set_state(record, from, to, ttl): moves the run to another state
-- relist(record, from, to, started, ttl): moves the run to the list of another state
-- is_failed(record) -> true if a step is dead that the run waits for
-- forget_failure(record, state, number, ttl) -> the state after a step that had failed is
--       done.  The field `caught` counts the failures that no run waits for
-- finish_record(record, from, text, found): moves the run to `done`, and lets its record expire;
--       text: of the last step; found: the fields of record_end, or nil
-- prolong_record(record, state, ttl): to at least ttl seconds
--
-- A record must not fail a step, so errors of its writes are ignored.

-- SLACK: seconds by which a lifetime may be too short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600
-- The jobs that a run calls: on_failure when a step of it dies, on_complete at its end.
--
-- Until it is pushed, a field of the record holds each of them: its payload up to the end of
-- the last argument, a mapping that is left open; a line feed; the name of its queue.  The
-- sorted set swf:resting holds the ids of runs that the keeper looks at, since a callback is
-- to be pushed and no script could do it.
--
-- rest(record, now): adds the run to swf:resting
-- push_callback(record, name, callback, members, now): pushes a callback, and deletes its
--       field; members: JSON members for the mapping, as text after a comma; now: epoch
--       seconds as text.  If it cannot be pushed, its field stays
-- end_run(record, state, found, now): what the end of a run means for its callback, its
--       unique key and its deadline; found: these fields of the record, in this order
--
-- A callback must not fail the script that pushes it, so errors of its writes are ignored.


local function rest(record, now)
  redis.pcall('ZADD', 'swf:resting', 'NX', now, string.sub(record, 10))
  -- As long as `dead` keeps a job.
  redis.pcall('EXPIRE', 'swf:resting', 15552000)
end

local function push_callback(record, name, callback, members, now)
  local head, queue = string.match(callback, '^([^\n]*)\n(.+)$')
  if not head then return end
  local list, length = 'queue:' .. queue, nil
  if not denied('LPUSH', list, '') and not denied('SADD', 'queues', queue) then length = redis.pcall('LLEN', list) end
  -- HDEL comes first: Redis allows it when it is out of memory, and after it also the others.
  if type(length) == 'number' and redis.pcall('HDEL', record, name) == 1 then
    local payload = head .. members .. '}],"enqueued_at":' .. now .. '}'
    if type(redis.pcall('LPUSH', list, payload)) == 'number' then
      redis.pcall('SADD', 'queues', queue)
      return
    end
    redis.pcall('HSET', record, name, callback)
  end
  rest(record, now)
end

local function end_run(record, state, found, now)
  local callback, unique, deadline = found[1], found[2], found[3]
  local id = string.sub(record, 10)
  if unique and redis.pcall('GET', 'swf:unique:' .. unique) == id then redis.pcall('UNLINK', 'swf:unique:' .. unique) end
  -- What is left of a cancelled run is removed at its deadline, too.
  if deadline and state == 'done' then redis.pcall('ZREM', 'swf:deadlines', id) end
  if callback then push_callback(record, 'on_complete', callback, ',"state":"' .. state .. '"', now) end
end

local PARTS = {'', ':times', ':done', ':failed', ':added', ':start'}
local MOST_LISTED = 100000
local UNIQUE_TTL = 31536000
local END_FIELDS = {'keep', 'total', 'started', 'caught', 'on_complete', 'unique', 'deadline', 'added', 'state',
  'repeatable'}

local function seconds_now()
  local now = redis.call('TIME')
  return string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
end

local function record_state(record)
  local state = record ~= '' and redis.pcall('HGET', record, 'state')
  return type(state) == 'string' and state or nil
end

local function record_end(record)
  local found = record ~= '' and redis.pcall('HMGET', record, unpack(END_FIELDS)) or {}
  return found[9] or nil, found
end

local function outlive(key, ttl)
  local left = redis.pcall('TTL', key)
  if type(left) == 'number' and left ~= -2 and left < ttl - SLACK then redis.pcall('EXPIRE', key, ttl) end
end

local function had_failed(text)
  return string.byte(text) == 33
end

local function set_bits(key, numbers)
  for first = 1, #numbers, 500 do
    local sets = {key}
    for i = first, math.min(first + 499, #numbers) do
      local n = #sets
      sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u1', numbers[i], 1
    end
    redis.pcall('BITFIELD', unpack(sets))
  end
end

local function mark_done(record, text)
  local number, times = string.match(text, '^(%d+) (.*)$')
  if number then
    redis.pcall('HSET', record .. ':times', number, times)
  else
    set_bits(record .. ':done', {text})
  end
end

local function add_to_list(name, id, started, ttl)
  local key = 'swf:flows:' .. name
  redis.pcall('ZADD', key, started, id)
  outlive(key, ttl)
end

local function relist(record, from, to, started, ttl)
  local id = string.sub(record, 10)
  redis.pcall('ZREM', 'swf:flows:' .. from, id)
  add_to_list(to, id, type(started) == 'string' and started or '0', ttl)
end

local function set_state(record, from, to, ttl)
  redis.pcall('HSET', record, 'state', to)
  relist(record, from, to, redis.pcall('HGET', record, 'started'), ttl)
end

local function record_dead(record, state, number, failure)
  redis.pcall('HSET', record .. ':failed', number, failure)
  local left = redis.pcall('TTL', record)
  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end
  if state == 'done' or state == 'cancelled' then return end
  local found, now = redis.pcall('HMGET', record, 'on_failure', 'on_complete', 'unique'), seconds_now()
  if found[3] then outlive('swf:unique:' .. found[3], UNIQUE_TTL) end
  if found[1] then
    local step = tonumber(number) and number or 'null'
    local members = ',"state":"failed","step":' .. step .. ',' .. string.sub(failure, 2, -2)
    push_callback(record, 'on_failure', found[1], members, now)
  end
  if found[2] then rest(record, now) end
end

local function record_caught(record, number, failure, ran)
  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end
  redis.pcall('HINCRBY', record, 'caught', 1)
  if ran ~= '0' then redis.pcall('HINCRBY', record, 'skipped', '-' .. ran) end
end

local function is_marked_spared(failure)
  return type(failure) == 'string' and string.sub(failure, -14) == '"spared":true}'
end

local function spare_failure(record, number)
  local failure = redis.pcall('HGET', record .. ':failed', number)
  if type(failure) ~= 'string' or is_marked_spared(failure) then return end
  redis.pcall('HSET', record .. ':failed', number, string.sub(failure, 1, -2) .. ',"spared":true}')
  redis.pcall('HINCRBY', record, 'caught', 1)
end

local function forget_spared(record, number)
  if not is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return end
  redis.pcall('HINCRBY', record, 'caught', -1)
end

local function known_state(record, text, ttl)
  local state = record_state(record)
  -- A step that has a number was started with a record.
  if state or record == '' or string.find(text, '^!?%d') then return state end
  local now = seconds_now()
  local made = redis.pcall('HSET', record, 'state', 'running', 'started', now, 'adopted', '1')
  -- A user of before may not write records.
  if type(made) ~= 'number' then return end
  redis.pcall('EXPIRE', record, ttl)
  add_to_list('running', string.sub(record, 10), now, ttl)
  return 'running'
end

local function finish_record(record, from, text, found)
  if from == 'done' then return end
  found = found or redis.pcall('HMGET', record, unpack(END_FIELDS))
  local keep, total = tonumber(found[1] or '') or 604800, tonumber(found[2] or '') or 0
  -- The end of the step.
  local now = string.match(text, '^!?%d+ %S+ (%S+)') or seconds_now()
  redis.pcall('HSET', record, 'state', 'done', 'finished', now)
  relist(record, from, 'done', found[3], keep)
  -- Now and then, by the last digit of the time.
  if string.sub(now, -1) == '0' then redis.pcall('ZREMRANGEBYRANK', 'swf:flows:done', 0, -MOST_LISTED - 1) end
  redis.pcall('EXPIRE', record, keep)
  redis.pcall('EXPIRE', record .. ':times', keep)
  -- A bitmap of large runs, and failures, if there were any, expire later: they are seldom.
  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end
  if from ~= 'running' or found[4] then redis.pcall('EXPIRE', record .. ':failed', keep) end
  if found[8] then redis.pcall('EXPIRE', record .. ':added', keep) end
  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end
  -- The reason of a pause that has come to its end.
  if from == 'paused' then redis.pcall('HDEL', record, 'reason') end
  end_run(record, 'done', {found[5], found[6], found[7]}, now)
end

local function prolong_record(record, state, ttl)
  for _, part in ipairs(PARTS) do outlive(record .. part, ttl) end
  outlive('swf:flows:' .. state, ttl)
end

local function is_failed(record)
  local dead, caught = redis.pcall('HLEN', record .. ':failed'), redis.pcall('HGET', record, 'caught')
  caught = type(caught) == 'string' and tonumber(caught) or 0
  return type(dead) ~= 'number' or dead > caught
end

local function forget_failure(record, state, number, ttl)
  forget_spared(record, number)
  redis.pcall('HDEL', record .. ':failed', number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end

local function record_steps(record, state, texts, ttl)
  local times, bits, prolongs = {record .. ':times'}, {}, false
  for _, text in ipairs(texts) do
    local number, mark, time = tonumber(text), '', ''
    if not number then mark, number, time = string.match(text, '^(!?)(%d+) ?(.*)$') end
    if number then
      if time == '' then
        bits[#bits + 1] = number
      else
        times[#times + 1] = number
        times[#times + 1] = time
      end
      if mark ~= '' then state = forget_failure(record, state, number, ttl) end
      prolongs = prolongs or number % 50 == 0
    elseif text ~= '' then
      state = forget_failure(record, state, string.sub(text, 2), ttl)
    end
  end
  -- A call has at most some hundreds of steps.
  if #times > 1 then redis.pcall('HSET', unpack(times)) end
  set_bits(record .. ':done', bits)
  if prolongs then prolong_record(record, state, ttl) end
  return state
end

local record = KEYS[1]

-- Reads.
local found, wrong = checked('HMGET', record, 'state', 'started')
if wrong then return wrong end
local state = found[1]
if not state then return {'UNKNOWN'} end
if state ~= 'paused' then return {'ENDED', state} end
wrong = denied('HSET', record, '', '')
if wrong then return wrong end
local after = is_failed(record) and 'failed' or 'running'

-- Writes.  Redis allows HDEL when it is out of memory, and after it also the others.
redis.call('HDEL', record, 'reason')
redis.call('HSET', record, 'state', after)
relist(record, state, after, found[2], redis.call('TTL', record))
return {'DONE'}
