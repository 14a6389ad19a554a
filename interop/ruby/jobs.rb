# frozen_string_literal: true

# The Ruby steps of the two-language tests, and the record of what ran.
#
#   INTEROP_EVENTS          Redis list of the record (default interop:events)
#   INTEROP_PYTHON_CLASSES  Python actors that need a Ruby constant, comma
#                           between two; NAME@QUEUE, the queue by default python
#   INTEROP_RETRY_IN        seconds until a retry, at least 1 (Sidekiq adds up to
#                           10 more for each try; api.rb's "hurry" does not wait)
#   INTEROP_MEMORY_TTL      seconds; 0 for a workflow without memory
#   INTEROP_MEMORY_PREFIX   default swf:mem
#   INTEROP_REFERENCES      bytes from which chains are kept by reference, with
#                           the companion file's storage; not, unless given

require "json"
require_relative "setup"

module Interop
  EVENTS = ENV.fetch("INTEROP_EVENTS", "interop:events")
  PYTHON_CLASSES = ENV.fetch("INTEROP_PYTHON_CLASSES", "").split(",").map(&:strip).reject(&:empty?)

  # One JSON line an execution, written when it ends and before the workflow
  # advances: whatever a step causes stands after it in the list.
  class Recorder
    include Sidekiq::ServerMiddleware

    def call(job_instance, job, queue)
      event = {
        "language" => "ruby", "class" => job["class"], "jid" => job["jid"], "args" => job["args"],
        "run_id" => job["workflow_run_id"], "queue" => queue, "retry_count" => job["retry_count"],
        "pid" => Process.pid, "start" => Time.now.to_f
      }
      event["wrapped"] = job["wrapped"] if job.key?("wrapped")
      event["outcome"] = "interrupted" # unless something below says otherwise
      result = yield
      event["outcome"] = "done"
      result
    rescue => error
      event["outcome"] = "failed"
      event["error"] = "#{error.class}: #{error.message}"
      raise
    ensure
      event["end"] = Time.now.to_f
      redis { |conn| conn.call("RPUSH", EVENTS, JSON.generate(event)) }
    end
  end

  # Counted in Redis and not in the payload: a job that is brought back from
  # the dead set must go on counting.
  def self.try_number(jid)
    Sidekiq.redis do |conn|
      number = conn.call("INCR", "#{EVENTS}:tries:#{jid}")
      conn.call("EXPIRE", "#{EVENTS}:tries:#{jid}", 3600)
      number
    end
  end

  # What a job does is said in its last argument, when that is a hash:
  #
  #   "fail"    how many tries raise before one succeeds
  #   "sleep"   seconds
  #   "return"  what perform returns (a hash goes to the run's memory)
  #   "extend"  seconds to give to the barriers above, as extend_ttl! does
  module Behaviour
    def self.included(job_class)
      job_class.include(Sidekiq::Job)
      return unless ENV.key?("INTEROP_RETRY_IN")

      job_class.sidekiq_retry_in { Integer(ENV["INTEROP_RETRY_IN"]) }
    end

    def behave(options)
      Sidekiq::Workflow.extend_ttl!(ttl: options["extend"]) if options["extend"]
      sleep(options["sleep"]) if options["sleep"]
      if options["fail"]
        number = Interop.try_number(jid)
        raise "try #{number} of #{options["fail"]} that fail" if number <= options["fail"]
      end
      options["return"]
    end

    def perform(*args)
      behave(args.last.is_a?(Hash) ? args.last : {})
    end
  end
end

module Rb
  class Step
    include Interop::Behaviour
    sidekiq_options queue: "ruby"
  end

  # Options that only the class knows: whoever advances onto it must find them.
  class Critical
    include Interop::Behaviour
    sidekiq_options queue: "critical", retry: 3, backtrace: true, tags: ["etl"]
  end

  class DeadAtOnce
    include Interop::Behaviour
    sidekiq_options queue: "ruby", retry: 0
  end

  class Discarded
    include Interop::Behaviour
    sidekiq_options queue: "ruby", retry: false
  end

  # Takes what it needs from the run's memory when it is pushed with no args.
  class Typed
    include Sidekiq::Job
    include Sidekiq::Workflow::TypedJob
    sidekiq_options queue: "ruby", retry: 1

    class Input < Sidekiq::Workflow::Schema
      required :text, String
      required :times, Integer, default: 2
    end

    class Output < Sidekiq::Workflow::Schema
      required :repeated, String
      required :length, Integer
    end

    def perform(input)
      repeated = input.text * input.times
      {"repeated" => repeated, "length" => repeated.length}
    end
  end
end

Interop::PYTHON_CLASSES.each do |entry|
  name, queue = entry.split("@", 2)
  Interop.define_stub(name, queue: queue || "python")
end

Sidekiq::Workflow.configure do |config|
  ttl = Integer(ENV.fetch("INTEROP_MEMORY_TTL", "86400"))
  prefix = ENV.fetch("INTEROP_MEMORY_PREFIX", "swf:mem")
  if ENV.key?("INTEROP_REFERENCES")
    config.callback_storage = SidekiqFlow::CallbackStorage.new(min_bytes: Integer(ENV["INTEROP_REFERENCES"]))
  end
  config.memory = ttl.zero? ? nil : Sidekiq::Workflow::Memory::RedisHashMemory.new(ttl: ttl, key_prefix: prefix)
end
