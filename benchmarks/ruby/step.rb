# frozen_string_literal: true

# The job of the benchmarks, and the gem with its defaults. Loads the real gem if
# SIDEKIQ_WORKFLOW_LIB names it, else the stand-in of interop/ruby/lib.

require "json"
require "/interop/ruby/setup"

Sidekiq::Workflow.configure do |config|
  config.memory = Sidekiq::Workflow::Memory::RedisHashMemory.new(ttl: 86_400, key_prefix: "swf:mem")
end

module Bench
  def self.now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  # Answers each line of standard input with one line, a JSON object each. Ends with
  # the input, even while an order waits: the measuring process has died.
  def self.serve
    $stdout.sync = true
    orders = Queue.new
    Thread.new do
      $stdin.each_line { |line| orders << JSON.parse(line) }
      exit!(0)
    end
    loop { puts JSON.generate(yield(orders.pop)) }
  end

  # What the worker counts, and for how long a step sleeps. Without a lock that all
  # threads take for each job.
  class Meter
    attr_reader :starts

    def initialize
      expect({"jobs" => 0, "ms" => 0, "record" => true})
    end

    def expect(order)
      @expected = order["jobs"]
      @record = order["record"]
      @seconds = order["ms"] / 1000.0
      @starts = []
      @acks = []
      @done = Queue.new
      @cpu = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
    end

    # The first line of the job.
    def step(index)
      @starts << [index, Bench.now] if @record
      sleep(@seconds) if @seconds > 0
    end

    def ack
      @acks << Bench.now
      @done << true if @acks.size == @expected
    end

    def acked
      @acks.size
    end

    def wait(seconds)
      @done.pop(timeout: seconds) if acked < @expected
    end

    def report
      cpu = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - @cpu
      {"acked" => acked, "starts" => @starts, "last_ack" => @acks.last || 0.0, "cpu" => cpu, **Bench.memory}
    end
  end

  METER = Meter.new

  # Resident memory in MB, now and at its peak.
  def self.memory
    status = File.read("/proc/self/status")
    {"rss" => status[/VmRSS:\s+(\d+)/, 1].to_i / 1024.0, "peak" => status[/VmHWM:\s+(\d+)/, 1].to_i / 1024.0}
  end

  class Step
    include Sidekiq::Job
    sidekiq_options queue: "bench"

    # Nothing but a returned hash goes to the run's memory.
    def perform(index, _padding = nil)
      METER.step(index)
      nil
    end
  end
end
