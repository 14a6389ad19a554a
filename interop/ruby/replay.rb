# frozen_string_literal: true

# Replays the recorded workflows with the installed Sidekiq and compares all of
# Redis after each step. This is what makes the stand-in worth testing against;
# with SIDEKIQ_WORKFLOW_LIB it checks another version of the gem.
#
#   REDIS_URL=redis://127.0.0.1:6379/9 ruby replay.rb [RECORDING.json ...]
#
# Where INTEROP_REQUIRE has loaded the companion file, each step goes through it:
# its fetch, its middleware, its acknowledge. The states must be the same.
#
# The database is emptied for each case, so it must be named and empty at first.
# Exit 1 when a state differs; the case and the step are named.

require "json"
require "forwardable"
require_relative "setup"
require_relative "replay/snapshot"
require "sidekiq/capsule"

COMPANION = defined?(SidekiqFlow::Companion) ? true : false

# The recordings have no records of runs, and no numbers of steps.
SidekiqFlow.records = false if COMPANION

# The classes of the recordings, with the options that they had.
%w[A B C D].each { |name| Object.const_set(name, Class.new { include Sidekiq::Job }) }

module Rb
  class Fetch
    include Sidekiq::Job
  end

  class Load
    include Sidekiq::Job
    sidekiq_options retry: 3, queue: "critical", backtrace: true, tags: ["etl"]
  end
end

class PyEnrich
  include Sidekiq::Job
  sidekiq_options retry: 5, queue: "python"
end

Sidekiq::Workflow.configure do |config|
  config.memory = Sidekiq::Workflow::Memory::RedisHashMemory.new(ttl: 300, key_prefix: "swf:mem")
end

module Replay
  # Sidekiq 7 writes float seconds, 8 integer milliseconds.
  TIME_CLASS = (Gem::Version.new(Sidekiq::VERSION).segments.first >= 8) ? Integer : Float

  class Case
    def initialize(recorded)
      @case = recorded
      @recorded = View.new
      @live = View.new
    end

    # Yields the name of each step and what differs after it, if anything does.
    # Ends at the first difference: what follows would only echo it.
    def each_difference
      lines = tree_difference
      return yield "tree", lines unless lines.empty?

      Sidekiq.redis { |conn| conn.call("FLUSHDB") }
      @began = now
      run_id = Interop.run_workflow(@case["tree"], @case["returned_run_id"])
      return yield "run", ["run id #{run_id}, recorded #{@case["returned_run_id"]}"] if run_id != @case["returned_run_id"]

      lines = compare(@case["after_run"])
      return yield "run", lines unless lines.empty?

      @case["steps"].each_with_index do |step, index|
        lines = run(step)
        lines = compare(step["after"]) if lines.empty?
        return yield "step #{index}", lines unless lines.empty?
      end
    end

    private

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    # No recorded payload carries the options of a job still to come.
    def tree_difference
      serialize = Sidekiq::Workflow::Serialize
      recorded = JSON.generate(@case["tree"])
      again = JSON.generate(serialize.serialize_workflow(serialize.unserialize_workflow(@case["tree"])))
      (recorded == again) ? [] : ["recorded #{recorded}", "now      #{again}"]
    end

    def run(step)
      raw = pop(step)
      return ["no job where the recording popped #{step["payload"]}"] if raw.nil?

      lines = payload_difference(step["payload"], raw)
      return lines unless lines.empty?

      job = Sidekiq.load_json(raw)
      instance = Object.const_get(job["class"]).new
      middleware.invoke(instance, job, job["queue"]) { step["returned"] }
      acknowledge
      []
    end

    # Sidekiq's own fetch has nothing to do there.
    def acknowledge
    end

    # A scheduled job was taken from the schedule itself, without the detour
    # through its queue: it has no enqueued_at.
    def pop(step)
      Sidekiq.redis do |conn|
        if JSON.parse(step["payload"]).key?("enqueued_at")
          conn.call("RPOP", "queue:#{step["queue"]}")
        else
          conn.call("ZPOPMIN", "schedule").flatten.first
        end
      end
    end

    def payload_difference(recorded, live)
      wrong = TIMES.find { |key| (time = JSON.parse(live)[key]) && !time.is_a?(TIME_CLASS) }
      return ["#{wrong} is no #{TIME_CLASS}: #{live}"] if wrong

      texts = [@recorded.payload(recorded, "popped", {}), @live.payload(live, "popped", {})]
      (texts.uniq.size == 1) ? [] : ["popped\n      recorded #{texts[0]}\n      now      #{texts[1]}"]
    end

    def middleware
      @middleware ||= Sidekiq::Middleware::Chain.new(Sidekiq.default_configuration) do |chain|
        chain.add Sidekiq::Workflow::Middleware
      end
    end

    def compare(recorded)
      live = Sidekiq.redis { |conn| Replay.snapshot(conn) }
      Difference.between(@recorded.read(recorded), @live.read(live), elapsed: now - @began, longer: COMPANION)
    end
  end

  class CompanionCase < Case
    def self.capsule
      @capsule ||= begin
        config = Sidekiq.default_configuration
        config.server_middleware { |chain| chain.add Sidekiq::Workflow::Middleware }
        SidekiqFlow::Companion.configure(config)
        Sidekiq::Capsule.new("replay", config)
      end
    end

    private

    def middleware = self.class.capsule.server_middleware

    def pop(step)
      unless JSON.parse(step["payload"]).key?("enqueued_at")
        Sidekiq.redis { |conn| conn.call("RPUSH", "queue:#{step["queue"]}", conn.call("ZPOPMIN", "schedule").flatten.first) }
      end
      self.class.capsule.queues = [step["queue"]]
      fetcher = SidekiqFlow::Companion::Fetch.new(self.class.capsule)
      # Since the database was emptied, this worker is not known: the first
      # fetch finds that out.
      @unit = fetcher.retrieve_work || fetcher.retrieve_work
      @unit&.job
    end

    def acknowledge = @unit.acknowledge
  end

  def self.main(paths)
    abort "set REDIS_URL: its database is emptied" unless ENV.key?("REDIS_URL")
    abort "the database of REDIS_URL is not empty" unless Sidekiq.redis { |conn| conn.call("DBSIZE") }.zero?

    passed = failed = 0
    paths.each do |path|
      JSON.parse(File.read(path)).fetch("cases").each do |recorded|
        differs = false
        (COMPANION ? CompanionCase : Case).new(recorded).each_difference do |step, lines|
          differs = true
          puts "FAIL #{File.basename(path)} #{recorded["name"]} #{step}", *lines.map { |line| "    #{line}" }
        end
        differs ? failed += 1 : passed += 1
      rescue => error
        failed += 1
        puts "FAIL #{File.basename(path)} #{recorded["name"]}", "    #{error.full_message(highlight: false)}"
      end
    end
    puts "Sidekiq #{Sidekiq::VERSION}, Ruby #{RUBY_VERSION}#{", with the companion" if COMPANION}", "#{passed} passed, #{failed} failed"
    exit(1) if failed > 0 || passed.zero?
  ensure
    Sidekiq.redis { |conn| conn.call("FLUSHDB") } if passed
  end
end

recordings = ARGV.empty? ? Dir[File.expand_path("../recordings/steps-*.json", __dir__)].sort : ARGV
Replay.main(recordings)
