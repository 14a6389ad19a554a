# frozen_string_literal: true

# Starts a workflow with the gem, as a Ruby application would. Reads one JSON
# object from standard input and prints one:
#
#   {"tree": {"__type__": "chain", ...}, "run_id": "UUID"}  ->  {"run_id": "UUID"}
#
# or an array of them, for many workflows. With the companion, "options" are those of
# SidekiqFlow.run, where a node is a tree. The run id may be left out. A class
# that jobs.rb does not have becomes a stub of a Python actor; its queue is
# python, or that of "queues": {"Class": "queue"}.

require "json"
require "securerandom"
require_relative "jobs"

start = lambda do |request|
  tree = request.fetch("tree")
  queues = request.fetch("queues", {})
  Interop.class_names(tree).each { |name| Interop.define_stub(name, queue: queues.fetch(name, "python")) }
  run_id = request["run_id"] || SecureRandom.uuid
  options = request["options"]
  {"run_id" => options ? Interop.run_with_options(tree, run_id, options) : Interop.run_workflow(tree, run_id)}
end

input = JSON.parse($stdin.read)
puts JSON.generate(input.is_a?(Array) ? input.map(&start) : start.call(input))
