# frozen_string_literal: true

# The producer of Sidekiq and of the gem, led over standard input. Each answer says
# when the work began and ended, on the clock that all processes of a machine share.
#
#   {"do": "send", "first": F, "jobs": N, "size": B}   perform_async, one by one
#   {"do": "bulk", "jobs": N}                          perform_bulk
#   {"do": "chain", "first": F, "jobs": N, "size": B}  a chain of N steps
#   {"do": "group", "jobs": N}                         a group of N steps
#   {"do": "fan_out", "jobs": N}                       a step, then a group of N - 1
#   {"do": "join", "jobs": N}                          a group of N - 1, then a step

require_relative "step"

module Bench
  class Producer
    include Sidekiq::Workflow

    def call(order)
      jobs = order["jobs"]
      padding = order["size"].to_i.zero? ? [] : ["x" * order["size"]]
      case order.fetch("do")
      when "send" then send_each(order["first"], jobs, padding)
      when "bulk" then send_bulk(jobs)
      when "chain" then run(steps(jobs, order["first"], padding)) { |nodes| Chain.new(*nodes) }
      when "group" then run(steps(jobs)) { |nodes| Group.new(*nodes) }
      when "fan_out" then run(steps(jobs)) { |nodes| Chain.new(nodes[0], Group.new(*nodes[1..])) }
      when "join" then run(steps(jobs)) { |nodes| Chain.new(Group.new(*nodes[..-2]), nodes[-1]) }
      else raise ArgumentError, order["do"]
      end
    end

    private

    def steps(count, first = 0, padding = [])
      Array.new(count) { |index| Job.new(Step, first + index, *padding) }
    end

    def send_each(first, jobs, padding)
      timed { jobs.times { |index| Step.perform_async(first + index, *padding) } }
    end

    def send_bulk(jobs)
      arguments = Array.new(jobs) { |index| [index] }
      timed { Step.perform_bulk(arguments) }
    end

    def run(nodes)
      timed { Sidekiq::Workflow::Workflow.new(yield(nodes)).run }
    end

    def timed
      GC.start
      began = Bench.now
      yield
      {"began" => began, "ended" => Bench.now}
    end
  end
end

producer = Bench::Producer.new
Bench.serve { |order| producer.call(order) }
